#compdef wormhole-mailbox
# Completions of wormhole-mailbox for zsh.

_wormhole-mailbox() {
    if (( CURRENT > 2 )); then
        case $words[2] in
{{commands}}        esac
    fi
    local -a arguments=(
{{options}}        '1:command:(({{command-names}}))'
    )
    _arguments -s $arguments
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _wormhole-mailbox "$@"
else
    compdef _wormhole-mailbox wormhole-mailbox
fi
