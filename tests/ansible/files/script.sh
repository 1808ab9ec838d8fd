#!/bin/sh
echo "script: $# arguments, $2"
id -un
exit 0
