# Stands beside the job in its container: keeps the fence, the runtime limit and the grace by the
# node's own clock, with the agent, the API server and the network all gone.
#
#   guard RUNTIME_CS GRACE_CS PATIENCE_CS WORD...
#
# Reads $HANSE_RUN/../orders/orders, which the kubelet keeps equal to an annotation of the pod:
#   FENCE_CS LEAD_CS STOP_CS REASON
# Nothing is started before the first order. Times are centiseconds of this container's own
# /proc/uptime: the agent learned that clock from `clock`, so nobody's time of day matters.
# STOP_CS is a grace, "-" while nobody wants it to stop.
# Writes clock (as it goes) and over; last words "REASON CODE UPTIME_CS" to the termination message.
# Plain POSIX shell: it runs in whatever image the job has.
runtime=$1 grace=$2 patience=$3
shift 3
run=$HANSE_RUN
base=${run%/*}
orders=$base/orders/orders
tick=0.2
sleep $tick 2>/dev/null || tick=1

now=0
look() { # the clock, without a process of its own
  read -r up rest </proc/uptime
  now=${up%.*}${up#*.}
  if [ "$now" -ge "$tell_at" ]; then
    tell_at=$((now + every))
    echo "$now" >"$run/clock.new" && mv "$run/clock.new" "$run/clock"
  fi
}

read_orders() { # false while there are none
  fence= lead= stop=- reason=
  [ -r "$orders" ] && read -r fence lead stop reason rest <"$orders"
  [ -n "$fence" ]
}

finish() { # REASON CODE
  : >"$run/over"
  look
  echo "$1 $2 $now" >"$base/end"
  case $2 in '' | -) exit 70 ;; esac
  exit "$2"
}

told=
trap 'told=1' TERM INT
umask 000
mkdir -p "$HANSE_CHECKPOINT_DIR" 2>/dev/null
umask 022
tell_at=0 every=0 # each look, while the agent is waited for
look
begun=$now

# 1. Wait for the first order.
until read_orders; do
  [ -z "$told" ] || finish deleted -
  [ $((now - begun)) -lt "$patience" ] || finish unconfirmed -
  sleep $tick
  look
done
[ "$stop" = - ] || finish "$reason" -
[ $((now + lead)) -lt "$fence" ] || finish fenced -

# 2. Start the job in a session of its own.
: >"$HANSE_PROGRESS"
every=100
cd "$HOME" || finish failed 126
if command -v setsid >/dev/null 2>&1; then
  group=-
  (setsid sh -c 'echo $$ >"$HANSE_RUN/leader"; unset HANSE_RUN; exec "$@"' sh "$@"; echo $? >"$run/status") 2>&1 &
else
  group=
  (sh -c 'echo $$ >"$HANSE_RUN/leader"; unset HANSE_RUN; exec "$@"' sh "$@"; echo $? >"$run/status") 2>&1 &
fi
started=$now
why= kill_at=

end() { # REASON GRACE_CS: SIGTERM once; a later request can only shorten the grace
  at=$((now + $2))
  if [ -z "$why" ]; then
    why=$1 kill_at=$at
    [ -s "$run/leader" ] && kill -TERM "$group$(cat "$run/leader")" 2>/dev/null
  elif [ "$at" -lt "$kill_at" ]; then
    kill_at=$at
  fi
}

# 3. Watch it until it is over.
until [ -s "$run/status" ]; do
  sleep $tick
  look
  [ -z "$told" ] || end deleted "$grace"
  if read_orders; then
    [ "$stop" = - ] || end "$reason" "$stop"
    [ $((now + lead)) -lt "$fence" ] || end fenced "$((fence - now))"
    fence_known=$fence lead_known=$lead
  elif [ $((now + ${lead_known:-0})) -ge "${fence_known:-$((now + 1))}" ]; then
    end fenced 0
  fi
  [ $((now - started)) -lt "$runtime" ] || end runtime_limit "$grace"
  if [ -n "$why" ] && [ "$now" -ge "$kill_at" ]; then
    [ -s "$run/leader" ] && kill -KILL "$group$(cat "$run/leader")" 2>/dev/null
    break
  fi
done
[ -s "$run/status" ] || sleep $tick

# 4. Say how it ended; with this process the container and all that is left in it ends.
code=137
[ -s "$run/status" ] && code=$(cat "$run/status")
finish "${why:-exited}" "$code"
