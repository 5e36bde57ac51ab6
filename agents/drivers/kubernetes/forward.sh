# The second container of a job's pod: its log is the job's progress, line by line.
#
#   sh forward.sh
#
# Prints "> " and each line of $HANSE_RUN/progress.jsonl, and "clock UPTIME_CS" as the guard wrote
# it: at once while the job has not begun, every few seconds after. Ends when the guard is over, or
# has not told the time for STALE looks.
# Plain POSIX shell.
run=$HANSE_RUN
STALE=600 # looks, about two minutes
EVERY=50  # looks between two clock lines, about ten seconds
tick=0.2
sleep $tick 2>/dev/null || tick=1 EVERY=10 STALE=120
trap : TERM INT
opened= clock= last= quiet=0 since=$EVERY part=

lines() { # whole lines only; a partial one is kept for the next look
  while IFS= read -r line <&3; do
    printf '> %s\n' "$part$line"
    part=
  done
  part=$part$line
}

while :; do
  over=
  [ -e "$run/over" ] && over=1
  if [ -z "$opened" ] && [ -e "$run/progress.jsonl" ]; then
    exec 3<"$run/progress.jsonl"
    opened=1
  fi
  [ -z "$opened" ] || lines
  [ -r "$run/clock" ] && read -r clock <"$run/clock"
  if [ "$clock" = "$last" ]; then quiet=$((quiet + 1)); else quiet=0; fi
  since=$((since + 1))
  [ -n "$opened" ] || since=$EVERY
  if [ -n "$clock" ] && [ "$since" -ge "$EVERY" ] && [ "$clock" != "$last" ]; then
    echo "clock $clock"
    since=0
  fi
  last=$clock
  if [ -n "$over" ]; then break; fi
  if [ -n "$clock" ] && [ "$quiet" -ge "$STALE" ]; then break; fi
  sleep $tick
done
[ -z "$part" ] || printf '> %s\n' "$part"
exit 0
