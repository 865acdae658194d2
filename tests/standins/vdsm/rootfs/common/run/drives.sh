#!/usr/bin/env bash
# Functions that make data disks and put disks on QEMU's command line.

: "${DISK_FMT:=}"
: "${DISK_NAME:=data}"
: "${DISK_SIZE:=16G}"
: "${DISK_TYPE:=scsi}"
: "${DISK_OPTS:=}"
: "${DISK_CACHE:=none}"
: "${DISK_IO:=native}"
: "${DISK_ROTATION:=1}"
DISK_LEAST_BYTES=6000000000

# File systems that can't do direct I/O.
limitCache () {
  case $(stat -f -c %T "$STORAGE") in
    tmpfs | ecryptfs) DISK_CACHE="writeback" DISK_IO="threads" ;;
  esac
}

# Prints the options for one disk. The format is the caller's word: nobody looks into the file.
createDevice () {
  local file="$1" type="$2" index="$3" address="$4" format="$5" io="$6" cache="$7"
  local serial="${8:-}" sectors="${9:-}" id="${10:-data$3}" device
  device="drive=$id,bootindex=$index${serial:+,serial=$serial}${sectors:+,$sectors}"
  [[ "${type,,}" == "none" ]] && return 0
  printf ' -drive file=%s,id=%s,format=%s,cache=%s,aio=%s,discard=%s,detect-zeroes=on,if=none' \
    "$file" "$id" "$format" "$cache" "$io" "$DISK_DISCARD"
  case ${type,,} in
    auto | scsi | virtio-scsi)
      printf ' -device virtio-scsi-pci,id=hw-%s,iothread=io2,bus=pcie.0,addr=%s%s' \
        "$id" "$address" "$SCSI_OPTS"
      printf ' -device scsi-hd,bus=hw-%s.0,channel=0,scsi-id=0,lun=0,rotation_rate=%s,%s' \
        "$id" "$DISK_ROTATION" "$device"
      ;;
    blk | virtio-blk)
      printf ' -device virtio-blk-pci,iothread=io2,bus=pcie.0,addr=%s,%s' "$address" "$device"
      ;;
    *)
      error "Invalid DISK_TYPE: $type"
      return 80
      ;;
  esac
}

# Prints the options for a data disk, which is made, converted or grown if necessary.
addDisk () {
  local base="$1" index="$2" address="$3" format="${DISK_FMT,,}" file other bytes now
  [[ "$format" == "raw" || "$format" == "qcow2" ]] || {
    error "Invalid DISK_FMT: $DISK_FMT"
    return 78
  }
  bytes=$(bytesOf "$DISK_SIZE") || return 73
  ((bytes >= DISK_LEAST_BYTES)) || {
    error "Please increase DISK_SIZE to at least 6 GB."
    return 73
  }
  file="$base.$(extension "$format")"
  other="$base.$(extension "$([[ "$format" == raw ]] && echo qcow2 || echo raw)")"
  if [ ! -s "$file" ] && [ -s "$other" ]; then
    info "Converting $other to $format..." >&2
    qemu-img convert -O "$format" "$other" "$file.new" || return 79
    mv -f "$file.new" "$file"
    rm -f "$other"
  elif [ ! -s "$file" ]; then
    info "Creating a $((bytes >> 30)) GB growable disk image in $format format..." >&2
    qemu-img create -q -f "$format" "$file" "$bytes" || return 79
  fi
  now=$(qemu-img info -f "$format" "$file" | sed -n 's/^virtual size:.*(\([0-9]*\) bytes)$/\1/p')
  if ((bytes > now)); then
    info "Resizing disk from $((now >> 30)) GB to $((bytes >> 30)) GB..." >&2
    qemu-img resize -q -f "$format" "$file" "$bytes" || return 79
  fi
  createDevice "$file" "$DISK_TYPE" "$index" "$address" "$format" "$DISK_IO" "$DISK_CACHE"
}

extension () { [[ "$1" == "raw" ]] && echo "img" || echo "$1"; }

return 0
