#!/usr/bin/python3
# WANT_JSON
import json
import sys

with open(sys.argv[1], encoding='utf-8') as fp:
    arguments = json.load(fp)
print(json.dumps({'changed': False, 'got': arguments['text'], 'file': sys.argv[0] != ''}))
