#!/bin/bash
#SBATCH --job-name=quickstart-train
#SBATCH --output="/runs/quickstart/cluster/logs/train-%a.log"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --signal=B:USR1@120
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --partition=gpu
#SBATCH --account=vision
#SBATCH --time=4:00:00
#SBATCH --gres=gpu:a100:4
#SBATCH --cpus-per-task=32
#SBATCH --mem=64G
#SBATCH --constraint=nvlink
#SBATCH --mail-type=FAIL
# Written by pushpull submit, which gives sbatch the numbers of the tasks to run and what they wait for.
options=(
    "--variant baseline"
    "--variant PP3"
)
task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID  # SLURM_JOB_ID may stand for the whole array
restarts=${SLURM_RESTART_COUNT:-0}
began=$(date +%s)
echo "== attempt $((restarts + 1)) of job $task on $(hostname), $(date -Is)"

set -e
export OMP_NUM_THREADS=8
module load cuda
source env/bin/activate
set +e

# Near the time limit the command is stopped, which it may be at any moment: what it has finished is kept.
at_limit=
trap 'at_limit=1; kill "$child"' USR1
/opt/env/bin/python -m pushpull_conv.cli train /runs/quickstart/recipe.yaml --out /runs/quickstart --data /data/digits --devices 4 ${options[SLURM_ARRAY_TASK_ID]} &
child=$!
wait "$child"
status=$?
if [ "$at_limit" ]; then
    wait "$child"
    status=$?
fi
[ "$status" -eq 0 ] && exit

# Status 2 is wrong input, which stays wrong. Anything else may pass: this task alone is queued again, and resumes.
got_on() { find /runs/quickstart/"${options[SLURM_ARRAY_TASK_ID]##* }" -newermt "@$began" -name last.ckpt | grep -q .; }
if [ "$status" -ne 2 ] && { [ "$restarts" -lt 3 ] || { [ "$at_limit" ] && got_on; }; }; then
    echo "== ended with status $status; back to the queue"
    scontrol requeue "$task"
fi
exit "$status"
