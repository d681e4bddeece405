# What a terminal in JupyterLab reads instead of ~/.bashrc.
[ -f ~/.bashrc ] && . ~/.bashrc
lab=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
[ -f "$lab/.venv/bin/activate" ] && . "$lab/.venv/bin/activate"
eval "$(python -m helpers env)"
unset lab
