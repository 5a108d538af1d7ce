#!/bin/sh
# One connection: requests on stdin, answers on stdout, the log on fd 3.
CR=$(printf '\r')

answer() { # status, type, body: one write, or the client's delayed ACK costs 40 ms
    body="$3" length=${#3}
    [ "$method" != HEAD ] || body=
    printf 'HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s' \
        "$1" "$2" "$length" "$connection" "$body"
    echo "$method $target ${1%% *}" >&3
}

number() { # name, default: a query parameter of at most five digits
    case "&$query&" in *"&$1="*) value="&$query&"; value="${value#*"&$1="}"; value="${value%%&*}" ;; *) value="$2" ;; esac
    case "$value" in '' | *[!0-9]* | ??????*) value="$2" ;; esac
    printf %s "$value"
}

page() {
    while IFS= read -r line; do
        case "$line" in
        *@release@*) line="${line%%@release@*}${MOORAGE_RELEASE:-none}${line#*@release@}" ;;
        *@instance@*) line="${line%%@instance@*}${MOORAGE_INSTANCE:-$(hostname)}${line#*@instance@}" ;;
        *@app@*) line="${line%%@app@*}${MOORAGE_APP:-hello}${line#*@app@}" ;;
        esac
        printf '%s\n' "$line"
    done </app/page.html
}

burn() {
    seconds=$(number s 5)
    end=$(($(date +%s) + seconds))
    while [ "$(date +%s)" -lt "$end" ]; do
        i=0
        while [ $i -lt 20000 ]; do i=$((i + 1)); done
    done
    answer "200 OK" text/plain "burned CPU for $seconds s
"
}

eat() { # dd holds its one block while the reader of its pipe sleeps
    mb=$(number mb 16) seconds=$(number s 2)
    failed=$({ { dd if=/dev/zero bs="${mb}M" count=1 2>/dev/null || echo failed >&4; } | { sleep "$seconds"; cat >/dev/null; } } 4>&1)
    if [ -n "$failed" ]; then
        answer "507 Insufficient Storage" text/plain "could not take $mb MB
"
    else
        answer "200 OK" text/plain "took $mb MB for $seconds s
"
    fi
}

while IFS= read -r -t 60 request; do
    request="${request%"$CR"}"
    [ -n "$request" ] || continue
    method="${request%% *}" target="${request#* }" length=0 connection=keep-alive
    case "$target" in *" HTTP/1.0") connection=close ;; esac
    target="${target% *}"
    while IFS= read -r -t 60 header; do
        header="${header%"$CR"}"
        case "$header" in
        '') break ;;
        [Cc]ontent-[Ll]ength:*) length="${header##*[: ]}" ;;
        [Cc]onnection:*[Cc]lose*) connection=close ;;
        esac
    done
    case "$length" in *[!0-9]*) exit ;; esac
    [ "$length" = 0 ] || head -c "$length" >/dev/null
    path="${target%%\?*}" query=
    case "$target" in *\?*) query="${target#*\?}" ;; esac
    case "$path" in
    /) answer "200 OK" "text/html; charset=utf-8" "$(page)" ;;
    /health) answer "200 OK" text/plain "ok
" ;;
    /env) answer "200 OK" text/plain "$(env)
" ;;
    /burn) burn ;;
    /eat) eat ;;
    *) answer "404 Not Found" text/plain "nothing at this path
" ;;
    esac
    [ "$connection" = keep-alive ] || exit 0
done
