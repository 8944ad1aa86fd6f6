#!/usr/bin/env bash
# Starts a real Slurm on this machine (one node, its own munge, all in a temporary folder) and shows that a search gives the
# same bytes unsharded, as a job array, and as a job array whose tasks are killed and requeued on the way.
#
#   scripts/slurm/test.sh [path of the hwsim binary]
#
# Needs root and Debian's packages slurm-wlm and munge; installs them where apt can. Without them it says so and exits 77.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
hwsim=$(realpath "${1:-$here/../../target/release/hwsim}")

skip() { echo "skipped: $*" >&2; exit 77; }
[ -x "$hwsim" ] || skip "there is no binary at $hwsim"
[ "$(id -u)" = 0 ] || skip "starting slurmd needs root"
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge; } \
        >/dev/null 2>&1 || skip "slurm-wlm and munge are not installed and apt cannot have them"
fi

dir=$(mktemp -d /tmp/hwsim-slurm.XXXXXX)
chmod 755 "$dir"
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    # A daemon may still be writing its last words.
    rm -rf "$dir" 2>/dev/null || { sleep 1; rm -rf "$dir"; }
}
trap stop EXIT

node=$(hostname -s)
cpus=$(nproc)
export SLURM_CONF=$dir/slurm.conf
mkdir "$dir"/{munge,state,spool,log}
chmod 700 "$dir/munge"
head -c 1024 /dev/urandom >"$dir/munge/key"
chmod 400 "$dir/munge/key"
cat >"$SLURM_CONF" <<CONF
ClusterName=hwsim
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=2
SchedulerParameters=sched_interval=1,requeue_delay=1
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
munged --foreground --force --key-file="$dir/munge/key" --socket="$dir/socket" --pid-file="$dir/munge/pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" 2>"$dir/log/munged" &
pids+=($!)
for _ in $(seq 50); do [ -S "$dir/socket" ] && break; sleep 0.1; done
slurmctld -D >"$dir/log/slurmctld" 2>&1 &
pids+=($!)
slurmd -D >"$dir/log/slurmd" 2>&1 &
pids+=($!)
up=no
for _ in $(seq 60); do
    if sinfo -h -o %T 2>/dev/null | grep -q idle; then up=yes; break; fi
    sleep 0.5
done
if [ $up = no ]; then
    cat "$dir"/log/* >&2
    skip "Slurm does not come up here"
fi
echo "$(slurmctld -V) on $node, $cpus CPUs"

cat >"$dir/array.toml" <<'PROFILE'
name  = "array"
clock = "1 GHz"
[memory]
bandwidth = "10 GB/s"
[device.systolic]
rows = 16
cols = 16
dataflow = "weight-stationary"
sparsity = "nm"
technology_nm = 16
sram = { inputs = "64 KiB", weights = "64 KiB", outputs = "64 KiB" }
PROFILE
question=(--workload resnet50 --profile "$dir/array.toml" --patterns dense,2:4,row@0.5
    --vary "device.systolic.rows=8..64+4" --vary "device.systolic.cols=8..64+4" --vary "memory.bandwidth=5..80 GB/s:${POINTS:-160}"
    --objectives latency,energy,area,quality --checkpoint 0.2)

sbatch_array() { HWSIM=$hwsim sbatch --parsable --array=0-3 --output="$dir/log/$1-%a" "$here/search.sbatch" "$dir/$1" "${question[@]}"; }
finish() { # job: waits until nothing of it is left in the queue
    for _ in $(seq 1200); do
        [ -z "$(squeue -h -j "$1" 2>/dev/null)" ] && return
        # Slurm holds a requeued task back for a while.
        for task in $(squeue -h -r -j "$1" -t PENDING -o %A 2>/dev/null); do scontrol update "JobId=$task" StartTime=now 2>/dev/null || true; done
        sleep 0.5
    done
    echo "job $1 does not end" >&2; squeue >&2; exit 1
}

"$hwsim" search "${question[@]}" -o "$dir/whole"

job=$(sbatch_array plain)
finish "$job"
"$hwsim" merge "$dir"/plain/shard-* -o "$dir/plain/whole"
diff -r "$dir/whole" "$dir/plain/whole"
echo "job array of 4 shards: the same bytes"

job=$(sbatch_array torn)
requeued=0
for round in 1 2 3; do
    for _ in $(seq 100); do
        running=$(squeue -h -r -j "$job" -t RUNNING -o "%F_%K" 2>/dev/null)
        [ -n "$running" ] && break
        [ -z "$(squeue -h -j "$job")" ] && break
        sleep 0.1
    done
    sleep "0.$((round * 3))"
    for task in $running; do
        # The task's processes get SIGKILL, and the task goes back into the queue.
        scontrol requeue "$task" 2>/dev/null && requeued=$((requeued + 1)) || true
    done
    for task in $(squeue -h -r -j "$job" -t PENDING -o %A); do scontrol update "JobId=$task" StartTime=now 2>/dev/null || true; done
done
finish "$job"
"$hwsim" merge "$dir"/torn/shard-* -o "$dir/torn/whole"
diff -r "$dir/whole" "$dir/torn/whole"
[ "$requeued" -gt 0 ] || { echo "no task was caught running: give a larger POINTS" >&2; exit 1; }
echo "job array of 4 shards, $requeued times killed and requeued: the same bytes"
