#!/usr/bin/env bash
# Makes a worker ready: gcsfuse, Python, the bucket at /mnt/BUCKET, the code and what it needs. Again at any time, also
# beside a run: each version of the code has a folder of its own.
# Usage: setup.sh BUCKET
set -euo pipefail
bucket=$1
mount=/mnt/$bucket
here=$(dirname "$(realpath "$0")")

# A new VM updates itself first; wait for that rather than fail.
apt_get() { sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 "$@" >/dev/null; }

missing=()
if ! command -v gcsfuse >/dev/null; then
  keyring=/usr/share/keyrings/cloud.google.asc
  curl --fail --silent --show-error --location --retry 5 --retry-all-errors \
    https://packages.cloud.google.com/apt/doc/apt-key.gpg |
    sudo tee "$keyring" >/dev/null
  echo "deb [signed-by=$keyring] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  missing+=(gcsfuse)
fi
python3.11 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3.11 python3.11-venv)
if ((${#missing[@]})); then
  apt_get update
  apt_get install "${missing[@]}"
fi

# In fstab, mounted by systemd: there again after a reboot and, when the VM is taken away, unmounted only after the run,
# which still writes its checkpoint. By default gcsfuse keeps metadata forever on TPU VMs, and a worker would never see
# what another wrote after it had looked.
sudo tee /etc/gcsfuse.yaml >/dev/null <<'YAML'
metadata-cache:
  ttl-secs: 0
  negative-ttl-secs: 0
YAML
if ! grep -q " $mount " /etc/fstab; then
  options="rw,_netdev,allow_other,uid=$(id -u),gid=$(id -g),config_file=/etc/gcsfuse.yaml"
  echo "$bucket $mount gcsfuse $options 0 0" | sudo tee -a /etc/fstab >/dev/null
fi
sudo mkdir -p "$mount"
if ! mountpoint -q "$mount"; then
  sudo systemctl daemon-reload
  sudo systemctl start "$(systemd-escape --path --suffix=mount "$mount")"
fi
if ! mkdir -p "$mount/runs"; then
  echo "gs://$bucket can't be written: give the VM's service account roles/storage.objectUser on it" >&2
  exit 1
fi

code=$HOME/imagen_code/$(sha256sum "$here/code.tar.gz" | cut -c1-12)
if [[ ! -d $code ]]; then
  mkdir -p "$code.partial"
  tar -xzf "$here/code.tar.gz" -C "$code.partial"
  mv "$code.partial" "$code"
fi
ln -sfn "$code" "$HOME/imagen_jax"

[[ -x $HOME/imagen_venv/bin/python ]] || python3.11 -m venv "$HOME/imagen_venv"
"$HOME/imagen_venv/bin/python" -m pip --quiet --disable-pip-version-check install --editable "${code}[tpu]"
echo "$(hostname): set up"
