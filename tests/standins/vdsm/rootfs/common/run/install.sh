#!/usr/bin/env bash
# Makes the boot disk and the system disk from a PAT, unless they are there.

: "${URL:=}"
MIRROR="https://global.synologydownload.com/download/DSM/release/7.2.2/72806"

# Upstream's: 10,738,466,816 bytes, which it really allocates, 8 GiB of them the first partition.
# Ours are small and sparse, so that committing a container takes seconds.
SYSTEM_BYTES=$((256 << 20))
ROOT_MIB=192
# Upstream's 15,032,385,536 in the storage in the same proportion, and some room for the PAT.
STORAGE_BYTES=$((1 << 30))
ROOT_BYTES=$((512 << 20))
PAT_LEAST_BYTES=250000000

abort () {
  local status="$1"
  shift
  error "$*"
  rm -rf "$STORAGE/tmp"
  exit "$status"
}

step () {
  info "Install: $1"
  html "$1"
}

requireSpace () {
  local folder="$1" bytes="$2" status="$3"
  (($(freeBytes "$folder") >= bytes)) || abort "$status" "Not enough free space in $folder."
}

findPat () { find / "$STORAGE" -maxdepth 1 -type "$1" -iname boot.pat 2>/dev/null | head -n 1; }

installed () { [ -s "$STORAGE/$BASE.boot.img" ] && [ -s "$STORAGE/$BASE.system.img" ]; }

# Copies or downloads the PAT.
fetchPat () {
  local pat="$1"
  rm -f "$pat"
  if [ -n "$FILE" ]; then
    step "Copying DSM..."
    cp --sparse=always "$FILE" "$pat" || abort 61 "Could not copy $FILE."
  else
    step "Downloading DSM..."
    busybox wget -q -O "$pat" "$URL" || abort 69 "Failed to download $URL."
  fi
  [ -s "$pat" ] || abort 61 "The PAT file is empty."
  (($(stat -c %s "$pat") >= PAT_LEAST_BYTES)) ||
    abort 62 "The PAT file is too small to hold an operating system."
}

unpackPat () {
  local pat="$1" folder="$2" packed
  step "Extracting installation image..."
  tar tf "$pat" >/dev/null 2>&1 || abort 63 "The PAT file is not in a readable format."
  tar xpf "$pat" -C "$folder" || abort 63 "Could not extract the PAT file."
  packed=$(find "$folder" -name '*.bin.zip' | head -n 1)
  [ -n "$packed" ] || abort 67 "The PAT file contains no boot loader."
  busybox unzip -q -o "$packed" -d "$folder" || abort 67 "Could not unpack the boot loader."
  mv -f "${packed%.zip}" "$folder/boot"
  [ -s "$folder/hda1.tgz" ] || abort 64 "The PAT file contains no system partition."
}

makeSystem () {
  local folder="$1" disk="$1/system" first=2048 root
  root="$folder/root"
  step "Preparing system partition..."
  requireSpace "$STORAGE" "$SYSTEM_BYTES" 97
  truncate -s "$SYSTEM_BYTES" "$disk"
  sfdisk -q --no-reread --no-tell-kernel "$disk" <<TABLE
label: dos
unit: sectors
$first, ${ROOT_MIB}MiB, 83
, , 82
TABLE
  mkdir -p "$root"
  step "Installing system partition..."
  tar xpJf "$folder/hda1.tgz" -C "$root" || abort 66 "Could not unpack the system partition."
  mke2fs -q -F -t ext4 -L standin -d "$root" \
    -E "offset=$((first * 512)),lazy_itable_init=0,lazy_journal_init=0" \
    "$disk" "${ROOT_MIB}M" || abort 66 "Could not make the system partition."
}

install () {
  local folder="$STORAGE/tmp" pat="/$BASE.pat" status
  rm -f "$STORAGE/$BASE.boot.img" "$STORAGE/$BASE.system.img"
  requireSpace / "$ROOT_BYTES" 96
  requireSpace "$STORAGE" "$STORAGE_BYTES" 94
  mkdir -p "$folder"
  fetchPat "$pat"
  if status=$(fault exit 88); then
    abort "$status" "The stand-in was told to fail here."
  fi
  unpackPat "$pat" "$folder"
  makeSystem "$folder"
  echo "$BASE" >"$STORAGE/dsm.ver"
  mv -f "$pat" "$STORAGE/$BASE.pat"
  mv -f "$folder/system" "$STORAGE/$BASE.system.img"
  # The last one: where it is missing, the next start installs again.
  mv -f "$folder/boot" "$STORAGE/$BASE.boot.img"
  rm -rf "$folder"
  html "Booting DSM..."
}

FILE=$(findPat f)
if [ -n "$FILE" ]; then
  BASE="DSM_VirtualDSM"
elif [ -n "$URL" ]; then
  BASE=$(basename "$URL" .pat)
  BASE="${BASE//[^A-Za-z0-9._-]/}"
elif [ -s "$STORAGE/dsm.ver" ]; then
  BASE=$(<"$STORAGE/dsm.ver")
else
  BASE="DSM_VirtualDSM_72806"
  URL="$MIRROR/$BASE.pat"
fi

if ! installed; then
  [ -z "$(findPat d)" ] || abort 65 "boot.pat is a folder: the file to be mounted does not exist."
  install
fi

return 0
