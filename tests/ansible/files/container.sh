#!/bin/sh
# Plays docker, podman, kubectl, lxc and incus, as far as Ansible calls them: this machine is the container, and its name
# is "box". Each call is noted in $CONTAINER_LOG.
echo "$*" >>"$CONTAINER_LOG"
# The folder that the client is in is none of the container's.
cd "$HOME" || exit
[ "$1" != --project ] || shift 2
case $1 in
version) echo 24.0.1; exit;;
inspect) echo root; exit;;
file)
    for word; do from=$to; to=$word; done
    exec cp "${from#local:box/}" "${to#local:box/}";;
cp)
    shift
    for word; do
        shift
        case $word in
        --*) ;;
        *) set -- "$@" "${word#box:}";;
        esac
    done
    exec cp "$@";;
exec) shift;;
esac
while :; do
    case $1 in
    -i|--privileged) shift;;
    -u|--user) shift 2;;
    -e|--env) export "$2"; shift 2;;
    -w|--workdir) cd "$2" || exit; shift 2;;
    *) break;;
    esac
done
[ "${1#local:}" = box ] || { echo "no such container: $1" >&2; exit 1; }
shift
[ "$1" != -c ] || [ "$3" != -- ] || shift 2
[ "$1" != -- ] || shift
exec "$@"
