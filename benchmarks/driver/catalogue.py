"""The figures that are measured, with their units, and the programs that yield them."""

import collections

LOWER, HIGHER = 'lower', 'higher'

# key: name in the programs' output; better: which direction is the better one.
Figure = collections.namedtuple('Figure', 'key title unit better')

# figures: keys this program yields. timeout: seconds until it is killed. quick: the core settings
# it has in a quick run. most_rounds: for programs whose answer hardly varies or that take long.
Program = collections.namedtuple('Program', 'file args figures timeout quick most_rounds')

FIGURES = collections.OrderedDict((figure.key, figure) for figure in [
    Figure('call_1_hop', 'call round trip', 'µs', LOWER),
    Figure('call_2_hop', 'call round trip, two hops', 'µs', LOWER),
    Figure('call_3_hop', 'call round trip, three hops', 'µs', LOWER),
    Figure('call_each_hop_more', 'each hop more', 'µs', LOWER),
    Figure('call_cpu', 'CPU per call, both sides', 'µs', LOWER),
    Figure('call_cpu_3_hop', 'CPU per call, three hops, all sides', 'µs', LOWER),
    Figure('pipelined_200', 'pipelined calls, 200 outstanding', 'calls/s', HIGHER),
    Figure('connect', 'connect and first call', 'ms', LOWER),
    Figure('connect_first', 'the same, first of a process', 'ms', LOWER),
    Figure('connect_shipped', 'connect and first call of a shipped function', 'ms', LOWER),
    Figure('connect_to_bare', 'connect, to a bare interpreter', 'times', LOWER),
    Figure('argument_1_mib', '1 MiB as argument', 'MB/s', HIGHER),
    Figure('result_1_mib', '1 MiB as result', 'MB/s', HIGHER),
    Figure('result_1_mib_later', '1 MiB as result, after such arguments', 'MB/s', HIGHER),
    Figure('argument_1_mib_3_hop', '1 MiB as argument, three hops', 'MB/s', HIGHER),
    Figure('argument_64_mib', '64 MiB as argument', 'MB/s', HIGHER),
    Figure('result_64_mib', '64 MiB as result', 'MB/s', HIGHER),
    Figure('one_way_up_64_b', 'one-way 64 B, child to parent', 'msg/s', HIGHER),
    Figure('one_way_down_64_b', 'one-way 64 B, parent to child', 'msg/s', HIGHER),
    Figure('one_way_up_128_kib', 'one-way 128 KiB, child to parent', 'msg/s', HIGHER),
    Figure('one_way_down_128_kib', 'one-way 128 KiB, parent to child', 'msg/s', HIGHER),
    Figure('fan_out_20_in_turn', 'fan-out over 20, a call to each in turn', 'calls/s', HIGHER),
    Figure('fan_out_20_at_once', 'fan-out over 20, all at once', 'calls/s', HIGHER),
    Figure('start_20', '20 contexts started one after another', 'ms', LOWER),
    Figure('start_100_together', '100 contexts started together', 'ms', LOWER),
    Figure('start_100_to_bare', 'the same, to bare interpreters', 'times', LOWER),
    Figure('service_call', 'service call round trip', 'µs', LOWER),
    Figure('file_service_256_mib', 'FileService, 256 MiB', 'MB/s', HIGHER),
    Figure('ssh_call', 'ssh call round trip', 'µs', LOWER),
    Figure('ssh_connect_more', 'ssh connect and first call, beyond ssh true', 'ms', LOWER),
    Figure('fork_first_call', 'fork and first call', 'ms', LOWER),
    Figure('fork_bare', 'os.fork() itself, in the same process', 'ms', LOWER),
    Figure('latch_flip_flop', 'Latch flip-flop of two threads', 'µs', LOWER),
    Figure('busy_call', '8 busy children: call round trip', 'µs', LOWER),
    Figure('busy_call_no_spin', '8 busy children, no spinning: call round trip', 'µs', LOWER),
    Figure('busy_pipelined', '8 busy children: pipelined calls', 'calls/s', HIGHER),
    Figure('busy_pipelined_no_spin', '8 busy children, no spinning: pipelined calls', 'calls/s', HIGHER),
    Figure('busy_one_way', '8 busy children: 64 B, child to parent', 'msg/s', HIGHER),
    Figure('busy_one_way_no_spin', '8 busy children, no spinning: 64 B, child to parent', 'msg/s', HIGHER),
    Figure('busy_latch', '8 busy children: Latch flip-flop', 'µs', LOWER),
    Figure('busy_latch_no_spin', '8 busy children, no spinning: Latch flip-flop', 'µs', LOWER),
    Figure('scale_start', '300 contexts: start and first call, each', 'ms', LOWER),
    Figure('scale_call', '300 contexts: call round trip', 'µs', LOWER),
    Figure('scale_memory', "300 contexts: the master's memory, each", 'kB', LOWER),
    Figure('scale_descriptors', "300 contexts: the master's descriptors, each", '', LOWER),
    Figure('chain_10_start', 'a chain of 10: start and first call', 'ms', LOWER),
    Figure('chain_10_call', 'a chain of 10: call round trip', 'µs', LOWER),
    Figure('idle_memory', 'private memory of an idle child', 'MB', LOWER),
    Figure('boot_command', 'size of the boot command', 'bytes', LOWER),
    Figure('preamble', 'sent to a child until it is ready', 'bytes', LOWER),
])

BOTH, TWO, NEVER = ('two', 'one'), ('two',), ()

# In the order in which they run: when time runs out, the last ones are those that are missed.
PROGRAMS = [
    Program('call_latency.py', (), (
        'call_1_hop', 'call_2_hop', 'call_3_hop', 'call_each_hop_more', 'call_cpu', 'call_cpu_3_hop',
    ), 30, BOTH, 100),
    Program('pipelined_calls.py', (), ('pipelined_200',), 20, BOTH, 100),
    Program('connect.py', (), ('connect', 'connect_first', 'connect_shipped', 'connect_to_bare'), 30, TWO, 100),
    Program('payload.py', ('--count', '1'), (
        'result_1_mib', 'argument_1_mib', 'result_1_mib_later', 'argument_1_mib_3_hop',
    ), 30, TWO, 100),
    Program('one_way.py', (), (
        'one_way_up_64_b', 'one_way_down_64_b', 'one_way_up_128_kib', 'one_way_down_128_kib',
    ), 40, TWO, 100),
    Program('latch_flip_flop.py', (), ('latch_flip_flop',), 20, BOTH, 100),
    Program('service_call.py', (), ('service_call',), 20, TWO, 100),
    Program('file_service.py', ('--count', '256'), ('file_service_256_mib',), 60, TWO, 4),
    Program('ssh_connect.py', (), ('ssh_call', 'ssh_connect_more'), 120, NEVER, 3),
    Program('fork_first_call.py', (), ('fork_first_call', 'fork_bare'), 30, TWO, 100),
    Program('idle_memory.py', (), ('idle_memory',), 20, TWO, 3),
    Program('boot_size.py', (), ('boot_command', 'preamble'), 20, TWO, 1),
    Program('fan_out.py', ('--count', '20'), ('start_20', 'fan_out_20_in_turn', 'fan_out_20_at_once'), 40, TWO, 100),
    Program('busy_neighbours.py', (), ('busy_call', 'busy_pipelined', 'busy_one_way', 'busy_latch'), 60, NEVER, 5),
    Program('busy_neighbours.py', ('--spin', '0'), (
        'busy_call_no_spin', 'busy_pipelined_no_spin', 'busy_one_way_no_spin', 'busy_latch_no_spin',
    ), 60, NEVER, 5),
    Program('payload.py', ('--count', '64'), ('argument_64_mib', 'result_64_mib'), 60, TWO, 5),
    Program('scale.py', ('--count', '300'), (
        'scale_start', 'scale_call', 'scale_memory', 'scale_descriptors', 'chain_10_start', 'chain_10_call',
    ), 180, NEVER, 1),
    Program('start_together.py', ('--count', '100'), ('start_100_together', 'start_100_to_bare'), 90, NEVER, 2),
]


def choose(words):
    """
    The figure keys that the given words name: a key, the start of one, or a program's name without
    .py.
    """
    chosen = []
    for word in words:
        keys = [key for key in FIGURES if key.startswith(word)]
        keys += [key for program in PROGRAMS if program.file == word + '.py' for key in program.figures]
        if not keys:
            raise ValueError('no such figure or program: %s' % (word,))
        chosen += keys
    return [key for key in FIGURES if key in chosen]
