#!/bin/sh
# DIMS post-commit hook: notes the commit in DIMS's spool. To remove it: dims hook uninstall
# Builtins only: whoever commits waits for this, and to fork one program costs more than all of it.
dims() {
    home=@HOME@ python=@PYTHON@ head='' ref='' sha='' common='' gitdir=${GIT_DIR:-.git}
    spool=$home/spool

    # The commit, out of git's own files: HEAD names a ref, and the ref was written a moment ago.
    if [ -f "$gitdir" ]; then
        IFS= read -r gitdir <"$gitdir"
        gitdir=${gitdir#gitdir: }
    fi
    IFS= read -r head <"$gitdir/HEAD"
    case $head in
    'ref: '*)
        ref=${head#ref: }
        if [ -f "$gitdir/commondir" ]; then IFS= read -r common <"$gitdir/commondir"; fi
        case $common in
        /*) ;;
        *) common=$gitdir/$common ;;
        esac
        if [ -f "$common/$ref" ]; then IFS= read -r sha <"$common/$ref"; fi
        ;;
    *) sha=$head ;;
    esac
    case $sha in
    *[!0-9a-f]*) sha='' ;;
    esac
    if [ ${#sha} -ne 40 ] && [ ${#sha} -ne 64 ]; then # packed refs, reftable, a ref that names a ref
        sha=$(git rev-parse --verify -q HEAD)
        ref=$(git symbolic-ref -q HEAD)
    fi

    note 2>/dev/null || { mkdir -p "$spool/new" "$spool/tmp" && note; } || return

    # A watcher sends the note as soon as it lies there. Only without one is there something to start.
    if watched; then return; fi
    "$python" @ISOLATION@ -m producers.git_hook flush --background "$home" &
}

note() {
    printf 'dims-git 1\nsha %s\nref %s\ndir %s\nroot %s\nend\n' "$sha" "$ref" "$GIT_DIR" "$PWD" \
        >"$spool/new/${sha:-HEAD}-$$.git"
}

# Whether the process that wrote watcher.pid lives: it has that number and, where /proc tells, still holds
# that file open (a pid alone may by now be another's).
watched() {
    pid='' fd=''
    [ -r "$spool/watcher.pid" ] || return 1
    { IFS= read -r pid && IFS= read -r fd; } <"$spool/watcher.pid"
    kill -0 "$pid" || return 1
    [ -z "$fd" ] || ! [ -d "/proc/$pid" ] || [ "/proc/$pid/fd/$fd" -ef "$spool/watcher.pid" ]
}

dims </dev/null >/dev/null 2>&1

# The hook that was here before DIMS.
if [ -x "${0%/*}/post-commit.before-dims" ]; then "${0%/*}/post-commit.before-dims" "$@"; fi
exit 0
