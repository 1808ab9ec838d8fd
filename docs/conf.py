# Configuration of Sphinx. "make docs" builds the manual, with warnings as errors.

import builtins
import os
import re
import sys

# The reference shows signatures, which only the Python form of each class has.
os.environ['MITOGEN_CORE'] = 'pure'

import mitogen

project = 'mitogen'
author = 'the authors of this project'
copyright = author
version = release = '.'.join(str(part) for part in mitogen.__version__)

extensions = ['sphinx.ext.autodoc', 'sphinx_copybutton']
exclude_patterns = ['_build']
default_role = 'code'
highlight_language = 'python'
html_theme = 'furo'
html_title = 'mitogen'
html_copy_source = False
html_show_copyright = False
html_static_path = ['_static']
html_css_files = ['tables.css']

# A copied session has its commands only, without prompts and without what they print.
copybutton_prompt_text = '$ '
copybutton_only_copy_prompt_lines = True

autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}


def link_core_names(app, what, name, obj, options, lines):
    """
    Docstrings name the classes of their own module without its name. Those of `mitogen._tree` are
    documented as names of `mitogen`.
    """
    module = getattr(obj, '__module__', None)
    if not isinstance(module, str) or not module.startswith('mitogen'):
        return
    if module.startswith('mitogen._tree'):
        module = 'mitogen.aio' if name.startswith('mitogen.aio') else 'mitogen'
    known = dir(sys.modules[module])
    for number, line in enumerate(lines):
        raised = re.match(r'(\s*:raises )(\w+)(:.*)$', line)
        if raised and raised.group(2) in known and not hasattr(builtins, raised.group(2)):
            line = '%s%s.%s%s' % (raised.group(1), module, raised.group(2), raised.group(3))
        lines[number] = re.sub(r':(class|meth|func):`(?!mitogen\.|~|logging\.|subprocess\.|inspect\.)([A-Z]\w*)`',
                               r':\1:`~%s.\2`' % (module,), line)


def setup(app):
    app.connect('autodoc-process-docstring', link_core_names)
