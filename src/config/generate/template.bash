# Completions of wormhole-mailbox for bash.

_wormhole_mailbox() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} names
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    COMPREPLY=()
    case $before in
{{values}}    esac
    case ${COMP_WORDS[1]} in
{{commands}}        *)
            names='{{options}}'
            if [[ $COMP_CWORD == 1 ]]; then names+=' {{command-names}}'; fi
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$word")
    if [[ ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}

complete -F _wormhole_mailbox wormhole-mailbox
