#!/bin/sh
# DIMS @HOOK@ hook: writes a note for DIMS about what git did. To remove it, run: dims hook uninstall
# It uses shell builtins only: you wait for it when you commit, and starting one program takes longer than all of it.

# Git runs this hook several times in each commit, and again for each other ref. DIMS needs the last state of few of them.
kept=${0%/*}/@HOOK@.before-dims
if [ @HOOK@ = reference-transaction ]; then
    if [ "$1" != committed ]; then
        if [ -x "$kept" ]; then exec "$kept" "$@"; fi
        exit 0
    fi
    if ! [ -x "$kept" ]; then # the input of a hook from before is not ours to read
        number=0 ref=''
        while IFS=' ' read -r old new ref; do
            case $ref in
            HEAD | *_HEAD | refs/heads/* | refs/tags/* | refs/stash) break ;;
            esac
            ref='' number=$((number + 1))
            if [ $number = 100 ]; then ref=unknown && break; fi
        done
        if [ -z "$ref" ]; then exit 0; fi
    fi
fi

dims() {
    python=@PYTHON@ head='' ref='' sha='' common='' gitdir=${GIT_DIR:-.git} root=$PWD
    if [ -f "$gitdir" ]; then
        IFS= read -r gitdir <"$gitdir"
        gitdir=${gitdir#gitdir: }
    fi
    if [ -f "$gitdir/commondir" ]; then IFS= read -r common <"$gitdir/commondir"; fi
    case $common in
    '') common=$gitdir ;;
    /*) ;;
    *) common=$gitdir/$common ;;
    esac
    if [ "$gitdir" = . ]; then root=${PWD%/.git}; fi # git runs in its own directory
    find_home
    if [ -z "$home$recorded" ]; then return; fi # no project of DIMS

    # In the middle of a rebase or of git am, only say that refs change: one note for many commits.
    case @HOOK@ in
    post-applypatch) kind=reference-transaction ;;
    post-commit | post-checkout)
        if [ -d "$gitdir/rebase-merge" ] || [ -d "$gitdir/rebase-apply" ]; then kind=reference-transaction; fi
        ;;
    esac
    if [ $kind != reference-transaction ]; then find_commit "$@"; fi
    keep_note || return

    # A watcher sends the note at once. So does a sender that an earlier hook started: it removes its pid file and then
    # checks the spool once more. Start a sender only if neither runs.
    if [ -z "$home" ] || lives watcher || lives sender; then return; fi
    if ! [ -x "$python" ]; then
        warning="DIMS does not know this change yet. Its note waits in $spool, because $python is missing. Run: dims hook install"
        return
    fi
    # The sender holds the file open from its first moment, because the next hook may look for it at once.
    { "$python" @ISOLATION@ -m dims_producers.git_hook flush --background --repository "$common" "$home" & } \
        9>>"$spool/sender.pid"
    printf '%s\n9\n' "$!" >"$spool/sender.pid"
    [ -O "$spool" ] || give "$spool" "$spool/sender.pid"
}

# Sets sha, ref and before: the commit of HEAD, its branch, and the commit that HEAD was before.
find_commit() {
    # Read the commit from git's own files: HEAD names a ref, and git has just written that ref.
    IFS= read -r head <"$gitdir/HEAD"
    case $head in
    'ref: '*)
        ref=${head#ref: }
        if [ -f "$common/$ref" ]; then IFS= read -r sha <"$common/$ref"; fi
        ;;
    *) sha=$head ;;
    esac

    # Read what HEAD was before. For an amended commit it came with the pairs. A rebase keeps it in its own files, except
    # a short one with the old backend, where HEAD is still detached.
    case @HOOK@$1 in
    post-checkout*) # with the flag 0, git took files out of a commit, and HEAD stayed
        before=$1 sha=$2
        if [ "$3" = 0 ]; then before=''; fi
        ;;
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
        case @HOOK@ in
        post-merge | post-rewrite) [ -n "$before" ] || before=$(git rev-parse --verify -q ORIG_HEAD) ;;
        esac
    fi
}

# Finds the data directory when git runs the hook, so that a project may move, and each linked worktree may have its
# own. A linked worktree without one uses that of the main worktree.
find_home() {
    search "$gitdir" "$root"
    if [ -n "$home$recorded" ] || [ "$common" = "$gitdir" ]; then return; fi
    here=$PWD
    if cd "$common/.."; then
        main=$PWD
        cd "$here" || return
        search "$common" "$main"
    fi
}

# Sets home to what `dims hook install` recorded in the git directory $1 for the worktree $2, or else to the nearest
# .dims above $2 that belongs to you.
search() {
    home='' recorded='' top=$2
    if [ -f "$1/dims/home" ]; then
        IFS= read -r recorded <"$1/dims/home"
        case $recorded in
        /*) ;;
        *) recorded=$2/$recorded ;;
        esac
        if [ -d "$recorded" ]; then
            home=$recorded
            return
        fi
    fi
    while :; do
        if [ -d "$top/.dims" ] && [ -O "$top/.dims" ]; then
            home=$top/.dims
            return
        fi
        [ -n "$top" ] || return
        top=${top%/*}
    done
}

# Writes the note into the spool of the data directory. If that does not accept it, git's own directory keeps the note,
# from where DIMS sends it too.
keep_note() {
    if [ -n "$home" ]; then
        spool=$home/spool
        if note 2>/dev/null || { make_spool "$home" && note; }; then return; fi
        reason="you cannot write to $spool. Run: dims doctor"
    else
        reason="the data directory $recorded does not exist. Run: dims hook install"
    fi
    spool=$common/dims/spool
    if note 2>/dev/null || { make_spool "$common" && note; }; then
        warning="DIMS does not know this change yet. Its note waits in $spool, because $reason"
    else
        warning="DIMS does not know this change, because $reason. Nor can you write to $spool. Then run: dims enqueue dims.git.commit"
        return 1
    fi
}

# Writes the note. All ref changes of a worktree share one note. DIMS first renames it, and then reads it, so a note that is
# still here will be read later than now.
note() {
    name_shared
    read_root "$shared"
    case $kind in
    reference-transaction)
        if [ "$waiting" = "$root" ]; then return; fi
        if [ -z "$waiting" ] && write_note "$shared"; then return; fi
        ;;
    post-commit | post-merge | post-checkout) # this note says more
        if [ "$waiting" = "$root" ]; then printf 'covered\n' >"$shared"; fi
        ;;
    esac
    write_note "$spool/new/${sha:-HEAD}-$$.git"
}

write_note() {
    printf 'dims-git 2\nhook %s\nsha %s\nbefore %s\nref %s\ndir %s\nroot %s\nend\n' \
        $kind "$sha" "$before" "$ref" "$GIT_DIR" "$root" >"$1" || return
    [ -O "$spool/new" ] || give "$spool/new" "$1"
}

# Sets shared to the file of the note that all ref changes of this worktree share: its path, with % for /.
name_shared() {
    rest=$root shared=''
    while :; do
        case $rest in */*) ;; *) break ;; esac
        shared=$shared${rest%%/*}% rest=${rest#*/}
    done
    shared=$shared$rest
    if [ ${#shared} -gt 120 ]; then shared=$rest; fi
    shared=$spool/new/refs-$shared.git
}

# Sets waiting to the root that the note $1 names, or to nothing if no such note waits.
read_root() {
    waiting=''
    if ! [ -s "$1" ]; then return; fi
    { IFS= read -r first && for _ in hook sha before ref dir root; do IFS= read -r waiting; done; } <"$1"
    case $first in
    covered) waiting='' ;;
    *) waiting=${waiting#root } ;;
    esac
}

# Creates the folders of the spool below $1.
make_spool() {
    mkdir -p "$spool/new" "$spool/tmp" || return
    [ -O "$1" ] || give "$1" "${spool%/*}" "$spool" "$spool/new" "$spool/tmp"
}

# Gives files to the owner of the first one. Without it, what root creates here would stop that owner's own commits.
give() {
    owner=$(set -- $(ls -ldn "$1") && printf '%s:%s' "$3" "$4")
    shift
    chown "$owner" "$@" || :
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
pairs='' before='' warning='' kind=@HOOK@
if [ @HOOK@ = post-rewrite ]; then
    while IFS= read -r pair; do
        before=${pair%% *}
        pairs="$pairs$pair
"
    done
fi

dims "$@" </dev/null >/dev/null 2>&1
if [ -n "$warning" ] && [ $kind != reference-transaction ]; then printf 'dims: %s\n' "$warning" >&2; fi

# Run the hook that was here before DIMS. Git reports the failure of these two, and another hook must not fail a command.
status=0
if [ -x "$kept" ]; then
    if [ -n "$pairs" ]; then
        printf '%s' "$pairs" 2>/dev/null | "$kept" "$@"
    else
        "$kept" "$@"
    fi
    case @HOOK@ in post-checkout | reference-transaction) status=$? ;; esac
fi
exit $status
