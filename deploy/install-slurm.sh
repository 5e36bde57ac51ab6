#!/bin/sh
# install-slurm.sh: Debian's Slurm and munge, for the tests of the Slurm driver. Needs root and apt.
# No service is started: the tests run daemons of their own, on free ports, in scratch folders.
set -eu
programs="slurmctld slurmd munged sbatch squeue scontrol scancel srun"
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
missing=
for program in $programs; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "Slurm is not here ($(echo $missing)): install slurm-wlm and munge, or run this as root on Debian." >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# an ordinary Debian would start both services on their standard ports
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  made=yes
fi
trap '[ -z "$made" ] || rm -f "$policy"' EXIT
install() { apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null; }
install || { apt-get update -qq && install; }
