# Completions of wormhole-mailbox for fish.

function __wormhole_mailbox_command -a wanted
    set -l words (commandline -opc)
    set -l found ''
    if set -q words[2]; and not string match -q -- '-*' $words[2]
        set found $words[2]
    end
    test "$found" = "$wanted"
end

function __wormhole_mailbox_no_words
    test (count (commandline -opc)) -eq 1
end

complete -c wormhole-mailbox -f
{{commands}}{{options}}{{options-of-commands}}