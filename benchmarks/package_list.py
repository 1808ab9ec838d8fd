"""
The packages that packages.py tries.
"""

#: Distributions with native extensions, and lines that use them.
NATIVE = [
    ('psutil', 'import os, psutil\nx = psutil.Process().pid == os.getpid()'),
    ('orjson', 'import orjson\nx = orjson.dumps({"a": [1, 2.5, None]})'),
    ('numpy', 'import numpy\nx = float(numpy.linalg.inv(numpy.array([[2.0, 0], [0, 4]])).sum())'),
    ('cryptography', 'from cryptography.fernet import Fernet\nf = Fernet(Fernet.generate_key())\nx = f.decrypt(f.encrypt(b"a"))'),
    ('pydantic', 'import pydantic\nclass M(pydantic.BaseModel):\n    a: int\nx = M(a="5").a'),
]
PURE = []
USES = []
