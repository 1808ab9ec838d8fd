"""
A bar chart of ratios on a logarithmic scale, as SVG text: nothing but the standard library is
needed to draw it.
"""

import math
from xml.sax.saxutils import escape

COLOURS = {'ours': '#0b6e4f', 'ours-pure': '#6bbf59', 'execnet': '#e08e45', 'multiprocessing': '#7d8597'}
SPARE_COLOUR = '#444444'

LABELS = 330        # width of the column of titles, px
PLOT = 560          # width of the plotted area
MARGIN = 60         # right of it, for the figures at the bars
BAR, GAP = 11, 9    # height of a bar, distance between groups
TOP = 64            # title and legend


def ticks(low, high):
    """1, 2 and 5 times the powers of ten between low and high."""
    found = []
    for exponent in range(int(math.floor(math.log10(low))), int(math.ceil(math.log10(high))) + 1):
        found += [step * 10.0 ** exponent for step in (1, 2, 5)]
    return [tick for tick in found if low <= tick <= high]


def bars(title, rows, peers, labels=LABELS, plot=PLOT):
    """
    SVG text. rows: list of (label, [(peer, ratio, (lower, upper quartile))]); ratio 1 is the base
    line. labels, plot: widths of the column of titles and of the plotted area, px.
    """
    values = [value for _, group in rows for _, ratio, quartiles in group for value in [ratio] + list(quartiles)]
    low = min(0.5, min(values) / 1.15)
    high = max(2.0, max(values) * 1.15)

    def x(ratio):
        return labels + plot * math.log(ratio / low) / math.log(high / low)

    height = TOP + sum(BAR * len(group) + GAP for _, group in rows) + 28
    width = labels + plot + MARGIN
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
        'font-family="sans-serif" font-size="11">' % (width, height, width, height),
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="12" y="22" font-size="14" font-weight="bold">%s</text>' % escape(title),
    ]
    at = labels
    for peer in peers:
        out.append('<rect x="%d" y="36" width="11" height="11" fill="%s"/>' % (at, COLOURS.get(peer, SPARE_COLOUR)))
        out.append('<text x="%d" y="46">%s</text>' % (at + 16, escape(peer)))
        at += 30 + 7 * len(peer)

    bottom = height - 26
    for tick in ticks(low, high):
        base = tick == 1
        out.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s" stroke-width="%s"/>' % (
            x(tick), x(tick), TOP - 6, bottom, '#000000' if base else '#dddddd', '1.5' if base else '1'))
        out.append('<text x="%.1f" y="%d" text-anchor="middle">%gx</text>' % (x(tick), bottom + 14, tick))

    y = TOP
    for label, group in rows:
        middle = y + BAR * len(group) / 2.0 + 4
        out.append('<text x="%d" y="%.1f" text-anchor="end">%s</text>' % (labels - 10, middle, escape(label)))
        for peer, ratio, (lower, upper) in group:
            left, right = sorted([x(1), x(ratio)])
            centre = y + (BAR - 1) / 2.0
            out.append('<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>' % (
                left, y, max(right - left, 0.5), BAR - 1, COLOURS.get(peer, SPARE_COLOUR)))
            if upper > lower:
                out.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="black"/>' % (
                    x(lower), x(upper), centre, centre))
            out.append('<text x="%.1f" y="%.1f" font-size="9">%.3gx</text>' % (
                max(right, x(upper)) + 4, centre + 3.5, ratio))
            y += BAR
        y += GAP
    out.append('</svg>')
    return '\n'.join(out) + '\n'
