# Sourced on every machine of a run, before Python starts: source launch/env.sh CHIP
#
# CHIP is a file of launch/xla_flags (tpu_v5e, tpu_v5p, tpu_v6e, gpu_h100, cpu).

chip="${1:?error: env.sh needs a chip, one of launch/xla_flags}"
folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ ! -f "$folder/xla_flags/$chip.env" ]; then
    echo "error: chip must be one of $(cd "$folder/xla_flags" && printf '%s ' *.env | sed 's/\.env//g'), got $chip" >&2
    return 2
fi
# shellcheck source=/dev/null
source "$folder/xla_flags/$chip.env"

# Compiled programs survive a restart where this folder does and all machines see it: process 0 alone writes them, and the others read
# them or compile anew. A home folder that comes and goes with its machine holds none. Whoever can write to the folder can run code in
# the run, so it is nobody else's.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/ebt_jax/xla}"
mkdir -p "$JAX_COMPILATION_CACHE_DIR"
chmod 700 "$JAX_COMPILATION_CACHE_DIR"

# The loader decodes JPEG in threads of its own; BLAS threads beside them only take their cores.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# JAX's own proxies and the coordination service do not go together.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
export PYTHONUNBUFFERED=1
