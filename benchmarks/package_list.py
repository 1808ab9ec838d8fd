"""
The packages that packages.py tries.
"""

#: Distributions with native extensions, and lines that use them.
NATIVE = [
    ('psutil', 'import os, psutil\nx = psutil.Process().pid == os.getpid()'),
    ('orjson', 'import orjson\nx = orjson.dumps({"a": [1, 2.5, None]})'),
    ('numpy', 'import numpy\nx = float(numpy.linalg.inv(numpy.array([[2.0, 0], [0, 4]])).sum())'),
    ('cryptography', 'from cryptography.fernet import Fernet\nf = Fernet(Fernet.generate_key())\n'
                     'x = f.decrypt(f.encrypt(b"a"))'),
    ('pydantic', 'import pydantic\nclass M(pydantic.BaseModel):\n    a: int\nx = M(a="5").a'),
]

#: The pure distributions that are downloaded most, and the module of each.
PURE = [(name, name.replace('-', '_')) for name in '''
    boto3 packaging urllib3 certifi idna requests setuptools botocore six pygments click pluggy pycparser
    anyio s3transfer h11 pytest annotated-types iniconfig fsspec httpx httpcore typing-inspection platformdirs
    pathspec jinja2 rich jmespath markdown-it-py filelock importlib-metadata starlette jsonschema zipp uvicorn
    wheel mdurl pyasn1 pytz tqdm annotated-doc aiosignal referencing jsonschema-specifications
    trove-classifiers tzdata aiohappyeyeballs virtualenv colorama pyasn1-modules typer tenacity sniffio
    pyparsing shellingham oauthlib soupsieve cachetools exceptiongroup more-itertools'''.split()]
_MODULES = {'markdown-it-py': 'markdown_it'}
PURE = [(name, _MODULES.get(name, module)) for name, module in PURE]

#: Others, and lines that need more than the modules: metadata, entry points, data, folders,
#: namespaces, extensions.
USES = [
    ('attrs', 'import attr\nx = attr.__version__'),
    ('python-dateutil', 'import dateutil.tz, datetime\nfrom dateutil.zoneinfo import get_zonefile_instance\n'
                        'x = len(list(get_zonefile_instance().zones)) > 300'),
    ('typing-extensions', 'import typing_extensions\nx = typing_extensions.Literal is not None'),
    ('charset-normalizer', 'import charset_normalizer\n'
                           'x = str(charset_normalizer.from_bytes("h\\u00e9".encode()).best())'),
    ('pyyaml', 'import yaml\nx = yaml.load("a: [1]", yaml.CSafeLoader)'),
    ('cffi', 'import cffi\nf = cffi.FFI()\nf.cdef("int abs(int);")\nx = f.dlopen(None).abs(-3)'),
    ('protobuf', 'from google.protobuf import timestamp_pb2\nm = timestamp_pb2.Timestamp(seconds=5)\n'
                 'x = m.SerializeToString()'),
    ('googleapis-common-protos', 'from google.rpc import status_pb2\nx = status_pb2.Status(code=5).code'),
    ('markupsafe', 'import markupsafe, markupsafe._speedups\nx = str(markupsafe.escape("<a>"))'),
    ('pyjwt', 'import jwt\nx = jwt.decode(jwt.encode({"a": 1}, "k" * 32), "k" * 32, ["HS256"])'),
    ('yarl', 'import yarl\nx = str(yarl.URL("http://a/b") / "c")'),
    ('multidict', 'import multidict\nx = multidict.MultiDict([("a", 1), ("a", 2)]).getall("a")'),
    ('frozenlist', 'import frozenlist\nf = frozenlist.FrozenList([1])\nf.freeze()\nx = f.frozen'),
    ('propcache', 'import propcache\nx = propcache.cached_property is not None'),
    ('aiohttp', 'import aiohttp\nx = aiohttp.__version__'),
    ('rpds-py', 'import rpds\nx = rpds.HashTrieMap({"a": 1})["a"]'),
    ('jsonschema-specifications', 'import jsonschema_specifications\n'
                                  'x = len(list(jsonschema_specifications.REGISTRY)) > 5'),
    ('certifi', 'import certifi, ssl\nx = len(ssl.create_default_context(cafile=certifi.where()).get_ca_certs()) > 50'),
    ('pytz', 'import pytz\nx = str(pytz.timezone("Europe/Berlin"))'),
    ('tzdata', 'import importlib.resources\n'
               'x = importlib.resources.files("tzdata.zoneinfo.Europe").joinpath("Berlin").read_bytes()[:4]'),
    ('trove-classifiers', 'import trove_classifiers\nx = len(trove_classifiers.classifiers) > 500'),
    ('pillow', 'import PIL.Image\nx = PIL.Image.new("RGB", (2, 3)).size'),
    ('greenlet', 'import greenlet\nx = greenlet.greenlet(lambda: 5).switch()'),
    ('wrapt', 'import wrapt\nx = wrapt.ObjectProxy(5) + 1'),
    ('websockets', 'import websockets\nx = websockets.connect is not None'),
    ('sqlalchemy', 'import sqlalchemy\ne = sqlalchemy.create_engine("sqlite://")\n'
                   'x = e.connect().execute(sqlalchemy.text("select 5")).scalar()'),
    ('pydantic-settings', 'import pydantic_settings\n'
                          'class S(pydantic_settings.BaseSettings):\n    a: int = 3\nx = S().a'),
    ('tomlkit', 'import tomlkit\nx = tomlkit.parse("a = 1")["a"]'),
    ('lxml', 'import lxml.etree\nx = lxml.etree.fromstring("<a><b/></a>")[0].tag'),
    ('beautifulsoup4', 'import bs4\nx = bs4.BeautifulSoup("<p>a</p>", "html.parser").p.text'),
    ('regex', 'import regex\nx = regex.match(r"\\p{L}+", "ab1").group()'),
    ('distro', 'import distro\nx = bool(distro.id())'),
    ('wcwidth', 'import wcwidth\nx = wcwidth.wcswidth("ab")'),
    ('coverage', 'import coverage\nx = coverage.Coverage(data_file=None).get_option("run:branch")'),
    ('docutils', 'import docutils.core\n'
                 'x = "<em>" in docutils.core.publish_string("*a*", writer_name="html").decode()'),
    ('dnspython', 'import dns.name\nx = str(dns.name.from_text("a.b"))'),
    ('werkzeug', 'import werkzeug.routing\nx = werkzeug.routing.Rule("/a", endpoint="b").rule'),
    ('networkx', 'import networkx\nx = networkx.shortest_path(networkx.path_graph(4), 0, 3)'),
    ('redis', 'import redis\nx = redis.__version__'),
    ('msgpack', 'import msgpack, msgpack._cmsgpack\nx = msgpack.unpackb(msgpack.packb([1]))'),
    ('pynacl', 'import nacl.utils, nacl.secret\nb = nacl.secret.SecretBox(b"k" * 32)\nx = b.decrypt(b.encrypt(b"a"))'),
    ('sortedcontainers', 'import sortedcontainers\nx = list(sortedcontainers.SortedList([2, 1]))'),
    ('keyring', 'import keyring.backend\nx = len(keyring.backend.get_all_keyring()) > 0'),
    ('tabulate', 'import tabulate\nx = tabulate.tabulate([[1]])[:3]'),
    ('babel', 'import babel.dates, datetime\nx = babel.dates.format_date(datetime.date(2020, 1, 2), locale="de")'),
    ('pycountry', 'import pycountry\nx = pycountry.countries.get(alpha_2="DE").name'),
    ('faker', 'import faker\nx = bool(faker.Faker("de_DE").name())'),
    ('phonenumbers', 'import phonenumbers\nx = phonenumbers.parse("+4930123456").country_code'),
    ('text-unidecode', 'import text_unidecode\nx = text_unidecode.unidecode("\\u00e9")'),
    ('simplejson', 'import simplejson, simplejson._speedups\nx = simplejson.dumps([1])'),
    ('bcrypt', 'import bcrypt\nx = bcrypt.checkpw(b"a", bcrypt.hashpw(b"a", bcrypt.gensalt(4)))'),
    ('paramiko', 'import paramiko\nx = paramiko.__version__'),
    ('stevedore', 'import stevedore\n'
                  'x = "simple" in stevedore.ExtensionManager("stevedore.example.formatter").names()'),
    ('flask', 'import flask, importlib.metadata\nx = flask.Flask("a").name, importlib.metadata.version("flask")'),
    ('django', 'import django.core.management\n'
               'x = "migrate" in django.core.management.find_commands(django.core.management.__path__[0])'),
    ('zope.interface', 'import zope.interface\nclass I(zope.interface.Interface):\n    pass\nx = I.__name__'),
    ('lark', 'import lark\nx = lark.Lark("start: WORD\\n%import common.WORD").parse("ab").children[0].value'),
    ('parso', 'import parso\nx = parso.parse("a = 1").children[0].type'),
    ('jedi', 'import jedi\nx = jedi.Script("import o").complete(1, 8)[0].name[:1]'),
    ('openpyxl', 'import openpyxl\nx = openpyxl.Workbook().active.title'),
]
