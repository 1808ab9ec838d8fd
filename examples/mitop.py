"""
A process table of many hosts, like top(1) of one.

    python examples/mitop.py [options] host [host ...]

Each host is a name for ssh(1), with or without a user before an @; "localhost" is a child of this
process. On each of them a function reads /proc again and again and sends what it finds to a
receiver here, for ever: it is called once and does not return. One select waits for all receivers
at once, for calls that fail, for hosts that are lost and for those that are still being connected
to.

On a terminal the table is repainted, processes that are new are bold, and q or Ctrl-C ends it.
Elsewhere, or with --plain, one table after the other is printed.
"""

from __future__ import print_function

import logging
import os
import sys
import threading
import time

import mitogen.core
import mitogen.master
import mitogen.select

COLUMNS = '%-16s %7s %-10s %6s %10s  %s'


# ---- what runs on each host

def read_processes():
    """
    Yield (pid, user id, ticks of CPU time, tick of its start, pages of memory, command) of each
    process.
    """
    for name in os.listdir('/proc'):
        if not name.isdigit():
            continue
        folder = '/proc/' + name
        try:
            uid = os.stat(folder).st_uid
            with open(folder + '/stat', 'rb') as fp:
                stat = fp.read().decode('utf-8', 'replace')
            with open(folder + '/cmdline', 'rb') as fp:
                command = fp.read().decode('utf-8', 'replace')
        except (IOError, OSError):
            # It has ended meanwhile.
            continue
        # The name is in parentheses, and may have some in it.
        start, _, rest = stat.rpartition(')')
        fields = rest.split()
        command = command.replace(u'\0', u' ').strip() or u'[%s]' % (start.partition('(')[2],)
        yield int(name), uid, int(fields[11]) + int(fields[12]), int(fields[19]), int(fields[21]), command


def user_name(uid):
    import pwd
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def send_processes(sender, interval):
    """
    Send a list of (pid, user, percent of a CPU, KiB of memory, command), now and every `interval`
    seconds. Does not return.
    """
    hertz = float(os.sysconf('SC_CLK_TCK'))
    page = os.sysconf('SC_PAGE_SIZE') // 1024
    before = {}
    then = 0.0
    while True:
        with open('/proc/uptime') as fp:
            now = float(fp.read().split()[0])
        found = []
        ticks_by_process = {}
        for pid, uid, ticks, start, pages, command in read_processes():
            # A process id is used again some day, but not with the same start.
            ticks_by_process[pid, start] = ticks
            # Since the last time, or over its whole life if this is the first.
            used = (ticks - before.get((pid, start), 0)) / hertz
            seconds = now - max(then, start / hertz)
            found.append((pid, user_name(uid), 100.0 * used / max(seconds, 0.01), pages * page, command))
        sender.send(found)
        before, then = ticks_by_process, now
        time.sleep(interval)


# ---- what runs here

class Host(object):
    """
    One host and what is known of it.
    """

    def __init__(self, name):
        self.name = name
        self.error = None
        self.receiver = None
        self.processes = []
        #: Process ids in the table before this one.
        self.known = set()
        #: Tables that came.
        self.count = 0

    def update(self, processes):
        self.known = set(process[0] for process in self.processes)
        self.processes = processes
        self.count += 1

    def fail(self, text):
        self.error = self.error or printable(text)
        self.processes = []

    def connect(self, router, options):
        if self.name == 'localhost':
            return router.local(name=self.name)
        user, _, hostname = self.name.rpartition('@')
        return router.ssh(
            hostname=hostname, username=user or None, python_path=options.python,
            ssh_args=['-F', options.ssh_config] if options.ssh_config else [],
        )


def printable(text):
    """
    Return text as one line that does nothing to a terminal. A process may be called anything.
    """
    return ''.join(char if char.isprintable() else ' ' for char in text)


def rows_of(hosts):
    """
    Return (is it new, line of the table) of each process of all hosts, the busiest first.
    """
    rows = []
    for host in hosts:
        for pid, user, cpu, memory, command in host.processes:
            # In the first table of a host nothing is news.
            new = bool(host.known) and pid not in host.known
            rows.append((-cpu, host.name, pid, new, COLUMNS % (
                host.name[:16], pid, user[:10], '%.1f' % (cpu,), memory, printable(command))))
    return [row[3:] for row in sorted(rows)]


def summary_of(hosts):
    alive = [host for host in hosts if host.count and not host.error]
    return '%s  %d of %d hosts, %d processes' % (
        time.strftime('%H:%M:%S'), len(alive), len(hosts), sum(len(host.processes) for host in hosts))


class PlainScreen(object):
    """
    Prints a table whenever each host has sent a new one.
    """
    patience = None

    def __init__(self, options):
        self.options = options
        self.printed = 0

    def show(self, hosts):
        """
        Show the state of all hosts, if it is time; return whether to go on.
        """
        alive = [host for host in hosts if not host.error]
        if not alive or min(host.count for host in alive) <= self.printed:
            return True
        self.printed = min(host.count for host in alive)
        print(summary_of(hosts))
        print(COLUMNS % ('HOST', 'PID', 'USER', 'CPU%', 'KIB', 'COMMAND'))
        for _, line in rows_of(hosts)[:self.options.rows]:
            print(line[:self.options.width].rstrip())
        for host in hosts:
            if host.error:
                print('%s: %s' % (host.name, host.error))
        print()
        sys.stdout.flush()
        return not self.options.count or self.printed < self.options.count


class CursesScreen(object):
    """
    Paints the whole terminal.
    """
    #: Seconds until somebody looks whether a key was pressed.
    patience = 0.2

    def __init__(self, window):
        import curses
        self.curses = curses
        self.window = window
        window.nodelay(True)
        try:
            curses.curs_set(0)
        except curses.error:
            # This terminal cannot hide it.
            pass

    def show(self, hosts):
        height, width = self.window.getmaxyx()
        lines = [(0, 'mitop  ' + summary_of(hosts)), (0, '')]
        lines += [(self.curses.A_BOLD, '%s: %s' % (host.name, host.error)) for host in hosts if host.error]
        lines.append((self.curses.A_REVERSE, (COLUMNS % (
            'HOST', 'PID', 'USER', 'CPU%', 'KIB', 'COMMAND')).ljust(width)))
        lines += [(self.curses.A_BOLD if new else 0, line) for new, line in rows_of(hosts)]
        self.window.erase()
        for y, (attribute, line) in enumerate(lines[:height]):
            try:
                self.window.addnstr(y, 0, line, width, attribute)
            except self.curses.error:
                # It has filled the last place of the window.
                pass
        self.window.refresh()
        return self.window.getch() not in (ord('q'), ord('Q'))


def watch(router, hosts, options, screen):
    """
    Show what the hosts send, until there is nothing left to see.
    """
    # Not oneshot: members stay when they have delivered something.
    select = mitogen.select.Select(oneshot=False)
    connected = mitogen.core.Latch()
    lost = mitogen.core.Latch()
    select.add(connected)
    select.add(lost)

    def connect(host):
        try:
            connected.put((host, host.connect(router, options)))
        except Exception as error:
            connected.put((host, error))

    for host in hosts:
        # A host that does not answer holds up neither the others nor the end.
        thread = threading.Thread(target=connect, args=(host,))
        thread.daemon = True
        thread.start()

    def begin(host, context):
        host.receiver = mitogen.core.Receiver(router)
        # Select tells which receiver a message came by, so let that know the rest.
        host.receiver.host = host
        select.add(host.receiver)
        call = context.call_async(send_processes, host.receiver.to_sender(), options.interval)
        call.host = host
        select.add(call)
        mitogen.core.listen(context, 'disconnect', lambda: lost.put(host))

    with select:
        while screen.show(hosts) and not all(host.error for host in hosts):
            try:
                event = select.get_event(timeout=screen.patience)
            except mitogen.core.TimeoutError:
                continue
            except mitogen.core.ChannelError:
                # The call of a host that is lost; `lost` tells of which.
                continue

            if event.source is connected:
                host, result = event.data
                if isinstance(result, Exception):
                    # The lines after it are about the command line.
                    host.fail(str(result).partition('\nContext ')[0])
                else:
                    begin(host, result)
            elif event.source is lost:
                event.data.fail('the connection is lost')
            elif event.source is event.source.host.receiver:
                event.source.host.update(event.data.unpickle())
            else:
                # The function on the host has ended, which it only does by an exception.
                try:
                    event.data.unpickle()
                except mitogen.core.CallError as error:
                    # Its first line; the traceback follows.
                    event.source.host.fail(str(error).splitlines()[0])


def parse_args():
    # Here, as what is imported at the top is imported on the hosts, too.
    import argparse
    parser = argparse.ArgumentParser(description='A process table of many hosts.')
    parser.add_argument('hosts', nargs='+', metavar='host', help='[user@]name, or localhost')
    parser.add_argument('-d', '--interval', type=float, default=2.0, help='seconds between two tables (default: 2)')
    parser.add_argument('-n', '--count', type=int, help='end after so many tables; implies --plain')
    parser.add_argument('--rows', type=int, default=20, help='rows of a plain table (default: 20)')
    parser.add_argument('--width', type=int, default=120, help='characters in a row of it (default: 120)')
    parser.add_argument('--plain', action='store_true', help='print tables even on a terminal')
    parser.add_argument('--python', default='python3', help='name of the interpreter on the hosts (default: python3)')
    parser.add_argument('--ssh-config', help='file to use instead of ~/.ssh/config')
    return parser.parse_args()


def main():
    options = parse_args()
    hosts = [Host(name) for name in options.hosts]
    # All that matters is in the table.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        with mitogen.master.Router() as router:
            if options.plain or options.count or not sys.stdout.isatty():
                watch(router, hosts, options, PlainScreen(options))
            else:
                import curses
                curses.wrapper(lambda window: watch(router, hosts, options, CursesScreen(window)))
    except KeyboardInterrupt:
        pass
    for host in hosts:
        if host.error:
            print('%s: %s' % (host.name, host.error), file=sys.stderr)
    return int(all(host.error for host in hosts))


if __name__ == '__main__':
    sys.exit(main())
