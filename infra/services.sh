# Sourced by distill.sh and down.sh: the Prefect server and worker of this checkout.
# A pid file under artifacts/.prefect says what was started here; nothing else is ever stopped.

port="${PORT:-4200}"
ui="http://127.0.0.1:$port"
state="$PWD/artifacts/.prefect"
mkdir -p "$state"

# The worker hands its environment to every flow run.
export PREFECT_API_URL="$ui/api"
export PREFECT_HOME="$state"
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
export PREFECT_WORKER_QUERY_SECONDS=2  # a run starts at once, not at the next ten seconds
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"  # flows load what is here and never download
export PATH="$PWD/.venv/bin:$PATH"

say() { printf '%s\n' "$*" >&2; }

# alive NAME: is the process of NAME's pid file still the one that was started?
alive() {
  local pid
  pid=$(cat "$state/$1.pid" 2>/dev/null) || return 1
  kill -0 "$pid" 2>/dev/null || return 1
  { tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null || ps -o args= -p "$pid"; } |
    grep -q "prefect $1 start"
}

# launch NAME COMMAND...: in the background, logged, its own process group. Job control (-m)
# keeps SIGINT at its default: a worker that inherits SIGINT=ignore does not hear SIGTERM.
launch() {
  local name=$1
  shift
  set -m
  nohup "$@" > "$state/$name.log" 2>&1 < /dev/null &
  set +m
  echo $! > "$state/$name.pid"
}

# The worker's runs, while the server is there to hear of it: they would go on without the worker.
stop_runs() {
  local runs
  alive worker || return 0
  mapfile -t runs < <(ps -o pid= --ppid "$(cat "$state/worker.pid")" | tr -d ' ')
  [ "${#runs[@]}" -gt 0 ] || return 0
  say "Stopping ${#runs[@]} run(s); what they made stays ..."
  kill -TERM "${runs[@]}" 2>/dev/null || true
  for _ in $(seq 150); do  # as long as Prefect gives a run that is cancelled
    kill -0 "${runs[@]}" 2>/dev/null || return 0
    sleep 0.2
  done
}

stop() {
  local name=$1 pid
  if alive "$name"; then
    pid=$(cat "$state/$name.pid")
    kill -TERM "$pid"
    for _ in $(seq 100); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.2
    done
    kill -0 "$pid" 2>/dev/null && kill -KILL "$pid"
    say "Stopped the $name (process $pid)."
  fi
  rm -f "$state/$name.pid" "$state/$name.port"
}

# ask PATH: a page of the server's API; a password, where there is one, stays off the process list.
ask() {
  local auth="${PREFECT_API_AUTH_STRING:-}"
  curl -fsS -m 2 ${auth:+--config -} "$PREFECT_API_URL/$1" 2>/dev/null <<< "${auth:+user = \"$auth\"}"
}

healthy() { ask health | grep -q true; }

listening() { (exec 3<> "/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

start_server() {
  if healthy; then
    say "Using the Prefect server at $ui."
    return
  fi
  if alive server && [ "$(cat "$state/server.port" 2>/dev/null)" != "$port" ]; then
    stop server
  fi
  if ! alive server; then
    if listening; then
      say "Port $port is in use by another program; choose a free one: make distill PORT=4300."
      exit 1
    fi
    say "Starting the Prefect server at $ui ..."
    echo "$port" > "$state/server.port"
    launch server prefect server start --host 127.0.0.1 --port "$port"
  fi
  for _ in $(seq 120); do
    healthy && return
    alive server || break
    sleep 1
  done
  tail -n 20 "$state/server.log" >&2
  say "The Prefect server did not come up; its whole log is $state/server.log."
  stop server
  exit 1
}

# One worker a checkout: an old one on another port would run with an old environment.
start_worker() {
  if alive worker && [ "$(cat "$state/worker.port" 2>/dev/null)" = "$port" ]; then
    return
  fi
  stop worker
  say "Starting a worker ..."
  echo "$port" > "$state/worker.port"
  launch worker prefect worker start --pool lightgen --type process --name "lightgen-$$"
  for _ in $(seq 60); do
    prefect_pool_ready && return
    alive worker || break
    sleep 1
  done
  tail -n 20 "$state/worker.log" >&2
  say "The worker did not come up; its whole log is $state/worker.log."
  exit 1
}

prefect_pool_ready() {
  ask work_pools/lightgen | grep -q '"READY"'
}
