"""
Hosts as they are written on a command line.
"""

import subprocess
import sys

import pytest

from mitogen._cli import hosts

import accounts

pytestmark = pytest.mark.once


@pytest.mark.parametrize('words, expected', [
    (['web1', 'root@web2:22', 'docker:web', 'ssh://a/ssh://b/sudo:'],
     ['web1', 'root@web2:22', 'docker:web', 'ssh://a/ssh://b/sudo:']),
    (['web[1-3]'], ['web1', 'web2', 'web3']),
    (['web[08-10,2]'], ['web08', 'web09', 'web10', 'web2']),
    (['r[1-2]n[1-2]'], ['r1n1', 'r1n2', 'r2n1', 'r2n2']),
    (['b', 'a', 'b'], ['b', 'a']),
    (['[::1]:22'], ['[::1]:22'])])
def test_words_are_targets(words, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ClusterShell.NodeSet', None)
    assert hosts.expand(words) == expected


@pytest.mark.parametrize('words, expected', [
    (['web[1-3]'], ['web1', 'web2', 'web3']),
    (['web[1-9/4,20]'], ['web1', 'web5', 'web9', 'web20']),
    (['web[1-3]!web2'], ['web1', 'web3']),
    (['me@web[09-10]:22'], ['me@web09:22', 'me@web10:22']),
    (['ssh://a/ssh://me@web[1-2]/sudo:'], ['ssh://a/ssh://me@web1/sudo:', 'ssh://a/ssh://me@web2/sudo:']),
    (['[::1]:22', 'b', 'a'], ['[::1]:22', 'b', 'a'])])
def test_ranges_of_clustershell(words, expected):
    pytest.importorskip('ClusterShell')
    assert hosts.expand(words) == expected


@pytest.mark.parametrize('word', ['web[9-1]', 'web[1-]', 'web[1-999999999]', 'web[1-2]!'])
def test_what_clustershell_takes_for_no_range(word):
    pytest.importorskip('ClusterShell')
    with pytest.raises(hosts.HostError, match='is no range|is too large'):
        hosts.expand([word])


@pytest.mark.parametrize('word, text', [
    ('web[1-]', 'is no range'), ('web[9-1]', 'is no range'), ('web[1-999999999]', 'is too large'),
    ('r[1-999]n[1-999]', 'is too large'),
    ('nosuch:x', 'is none of'), ('', 'there is no host in it'),
    ('web[1-2]*', 'a range or a pattern'), ('@/no/such/file', '/no/such/file: No such file'), ('x*', 'has a name like x')])
def test_a_word_that_is_no_host(word, text, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ClusterShell.NodeSet', None)
    with pytest.raises(hosts.HostError, match=text):
        hosts.expand([word], str(tmp_path / 'config'))


def test_a_file_of_hosts(tmp_path):
    path = tmp_path / 'all'
    path.write_text('# of the rack\nweb1\n\n  web2 # old\n@%s/more\n' % (tmp_path,))
    (tmp_path / 'more').write_text('web[3-4]\n')
    assert hosts.expand(['@%s' % (path,)]) == ['web1', 'web2', 'web3', 'web4']


def test_files_that_name_each_other(tmp_path):
    path = tmp_path / 'all'
    path.write_text('@%s\n' % (path,))
    with pytest.raises(hosts.HostError, match='names itself'):
        hosts.expand(['@%s' % (path,)])


def test_patterns_are_names_in_the_configuration_of_ssh(tmp_path):
    config = tmp_path / 'config'
    config.write_text('Host web1 web2 !web3 web*\n  User x\nhost=db1\nMatch all\nInclude more/*\nHost *\n')
    (tmp_path / 'more').mkdir()
    (tmp_path / 'more' / 'a').write_text('Host "web9" other\nInclude %s\n' % (config,))
    assert hosts.expand(['web*'], str(config)) == ['web1', 'web2', 'web9']
    assert hosts.expand(['me@db?'], str(config)) == ['me@db1']


#: Lines, and names of which some are in them.
CONFIGURATIONS = [
    ('Host a b !c\n Port 7\n', 'a b c'),
    ('Host a a2 !a\n Port 7\n', 'a a2'),
    ('host = a # b\n  port=7\nHost "c" d#e\n Port 7\n#Host f\n', 'a b c d d#e f'),
    ('\tHOST\ta\r\n Port 7\nHost x[1]\n Port 7\n', 'a x[1] x1'),
    ('Host a\n Include {more}\n', 'b in'),
    ('Host i* !in2\n Include {more}\n', 'in in2'),
    ('Match all\n Include "{more}"\n', 'in'),
    ('Match host x,in*\n Include {more}\n', 'in x'),
    ('Match !host in*\n Include {more}\n', 'in'),
    ('Match originalhost other\n Include {more}\n', 'in'),
]


@pytest.mark.parametrize('lines, names', CONFIGURATIONS)
def test_names_are_those_for_which_ssh_has_lines(tmp_path, lines, names):
    more = tmp_path / 'more'
    more.write_text('Host in in2\n Port 7\n')
    config = tmp_path / 'config'
    config.write_text(lines.format(more=more))
    ssh = accounts.need_program('ssh', 'openssh-client')
    expected = [name for name in names.split() if '\nport 7\n' in subprocess.run(
        [ssh, '-G', '-F', str(config), name], stdout=subprocess.PIPE, text=True, check=True).stdout]
    assert [name for name in hosts.configured(str(config)) if name in names.split()] == expected


def test_an_included_file_includes_from_the_folder_of_the_first(tmp_path):
    (tmp_path / 'more').mkdir()
    (tmp_path / 'config').write_text('Include more/first "more/with blank"\nInclude config\n')
    (tmp_path / 'more' / 'first').write_text('Include second\nMatch exec "true"\nInclude second\nHost a\n')
    (tmp_path / 'more' / 'with blank').write_text('Host c\n')
    (tmp_path / 'second').write_text('Host b\n')
    assert hosts.configured(str(tmp_path / 'config')) == ['b', 'a', 'c']
