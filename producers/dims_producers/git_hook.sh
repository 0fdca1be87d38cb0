#!/bin/sh
# DIMS @HOOK@ hook: notes in DIMS's spool what git did. To remove it: dims hook uninstall
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

    # What HEAD was before; of an amended commit it came with the pairs. A rebase keeps it in files of its own, but
    # for a short one of the old backend, with which HEAD is still detached.
    case @HOOK@$1 in
    post-merge* | post-rewriterebase)
        IFS= read -r before <"$gitdir/ORIG_HEAD"
        state=$gitdir/rebase-merge
        [ -d "$state" ] || state=$gitdir/rebase-apply
        if [ @HOOK@ = post-rewrite ] && [ -f "$state/orig-head" ]; then
            IFS= read -r before <"$state/orig-head"
            IFS= read -r head <"$state/head-name"
            case $head in refs/*) ref=$head ;; esac
        fi
        ;;
    esac

    case $sha in
    *[!0-9a-f]*) sha='' ;;
    esac
    if [ ${#sha} -ne 40 ] && [ ${#sha} -ne 64 ]; then # packed refs, reftable, a ref that names a ref
        sha=$(git rev-parse --verify -q HEAD)
        ref=$(git symbolic-ref -q HEAD)
        [ @HOOK@ = post-commit ] || [ -n "$before" ] || before=$(git rev-parse --verify -q ORIG_HEAD)
    fi

    note 2>/dev/null || { mkdir -p "$spool/new" "$spool/tmp" && note; } || return

    # A watcher sends the note as soon as it lies there, and so does a sender that a hook started before: it
    # takes its pid away, and looks once more. Only without either there is something to start.
    if lives watcher || lives sender; then return; fi
    "$python" @ISOLATION@ -m dims_producers.git_hook flush --background "$home" 9>>"$spool/sender.pid" &
    printf '%s\n9\n' "$!" >"$spool/sender.pid"
}

note() {
    printf 'dims-git 2\nhook %s\nsha %s\nbefore %s\nref %s\ndir %s\nroot %s\nend\n' \
        @HOOK@ "$sha" "$before" "$ref" "$GIT_DIR" "$PWD" >"$spool/new/${sha:-HEAD}-$$.git"
}

# Whether the process that is named in a file lives: it has that pid and, where /proc tells, still holds
# that file open (a pid alone may by now be another's).
lives() {
    pid='' fd='' file=$spool/$1.pid
    [ -r "$file" ] || return 1
    { IFS= read -r pid && IFS= read -r fd; } <"$file"
    kill -0 "$pid" || return 1
    [ -z "$fd" ] || ! [ -d "/proc/$pid" ] || [ "/proc/$pid/fd/$fd" -ef "$file" ]
}

# Git tells a rewrite by pairs of commits, the old and the new, on standard input. Whoever comes next gets all.
pairs='' before=''
if [ @HOOK@ = post-rewrite ]; then
    while IFS= read -r pair; do
        before=${pair%% *}
        pairs="$pairs$pair
"
    done
fi

dims "$@" </dev/null >/dev/null 2>&1

# The hook that was here before DIMS.
kept=${0%/*}/@HOOK@.before-dims
if [ -x "$kept" ]; then
    if [ -n "$pairs" ]; then
        printf '%s' "$pairs" 2>/dev/null | "$kept" "$@"
    else
        "$kept" "$@"
    fi
fi
exit 0
