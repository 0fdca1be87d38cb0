#!/bin/sh
# DIMS @HOOK@ hook: writes a note for DIMS about what git did. To remove it, run: dims hook uninstall
# It uses shell builtins only: you wait for it when you commit, and starting one program takes longer than all of it.
dims() {
    home=@HOME@ python=@PYTHON@ head='' ref='' sha='' common='' gitdir=${GIT_DIR:-.git}
    spool=$home/spool

    # Read the commit from git's own files: HEAD names a ref, and git has just written that ref.
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

    # Read what HEAD was before. For an amended commit it came with the pairs. A rebase keeps it in its own files, except
    # a short one with the old backend, where HEAD is still detached.
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
    if [ ${#sha} -ne 40 ] && [ ${#sha} -ne 64 ]; then # packed refs, a reftable, or a symbolic ref: ask git
        sha=$(git rev-parse --verify -q HEAD)
        ref=$(git symbolic-ref -q HEAD)
        [ @HOOK@ = post-commit ] || [ -n "$before" ] || before=$(git rev-parse --verify -q ORIG_HEAD)
    fi

    note 2>/dev/null || { mkdir -p "$spool/new" "$spool/tmp" && note; } || return

    # A watcher sends the note at once. So does a sender that an earlier hook started: it removes its pid file and then
    # checks the spool once more. Start a sender only if neither runs.
    if lives watcher || lives sender; then return; fi
    "$python" @ISOLATION@ -m dims_producers.git_hook flush --background "$home" 9>>"$spool/sender.pid" &
    printf '%s\n9\n' "$!" >"$spool/sender.pid"
}

note() {
    printf 'dims-git 2\nhook %s\nsha %s\nbefore %s\nref %s\ndir %s\nroot %s\nend\n' \
        @HOOK@ "$sha" "$before" "$ref" "$GIT_DIR" "$PWD" >"$spool/new/${sha:-HEAD}-$$.git"
}

# Returns whether the process in a pid file is alive. Another process may have the same pid by now, so where /proc
# exists, the process must also hold the file open.
lives() {
    pid='' fd='' file=$spool/$1.pid
    [ -r "$file" ] || return 1
    { IFS= read -r pid && IFS= read -r fd; } <"$file"
    kill -0 "$pid" || return 1
    [ -z "$fd" ] || ! [ -d "/proc/$pid" ] || [ "/proc/$pid/fd/$fd" -ef "$file" ]
}

# After a rewrite, git writes pairs of an old and a new commit to standard input. The next hook gets all of them too.
pairs='' before=''
if [ @HOOK@ = post-rewrite ]; then
    while IFS= read -r pair; do
        before=${pair%% *}
        pairs="$pairs$pair
"
    done
fi

dims "$@" </dev/null >/dev/null 2>&1

# Run the hook that was here before DIMS.
kept=${0%/*}/@HOOK@.before-dims
if [ -x "$kept" ]; then
    if [ -n "$pairs" ]; then
        printf '%s' "$pairs" 2>/dev/null | "$kept" "$@"
    else
        "$kept" "$@"
    fi
fi
exit 0
