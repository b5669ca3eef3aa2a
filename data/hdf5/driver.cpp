#include "data/hdf5/driver.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <iterator>
#include <utility>

#include "data/base/files.h"
#include "data/hdf5/handle.h"

namespace routescope::data::hdf5 {

namespace {

struct OpenFile {
  H5FD_t base{};  // the first member: HDF5 uses a pointer to it
  DriverFile file;
  int descriptor = -1;
  haddr_t end_allocated = 0, end_written = 0;
  haddr_t length_at_opening = 0;
  std::pair<dev_t, ino_t> identity;
};

OpenFile& of(H5FD_t* file) {
  return *reinterpret_cast<OpenFile*>(file);
}
const OpenFile& of(const H5FD_t* file) {
  return *reinterpret_cast<const OpenFile*>(file);
}

// Puts a failure on HDF5's error stack, in the words of HDF5's own driver, which last_error() looks for. HDF5 may go
// on, and fail later for a reason that follows from this one, so the first is kept.
herr_t failed(const char* what, int reason) {
  H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_IO, H5E_WRITEERROR,
           "%s failed: errno = %d, error message = '%s'", what, reason, std::strerror(reason));
  return -1;
}

// HDF5 may go on, and fail later for a reason that follows from this one: the first is kept.
herr_t failed_to_write(const DriverFile& file, const char* what, int reason) {
  if (file.fault && *file.fault == 0) *file.fault = reason;
  return failed(what, reason);
}

const DriverFile* settings(hid_t access) {
  const auto* const* pointer = static_cast<const DriverFile* const*>(H5Pget_driver_info(access));
  return pointer ? *pointer : nullptr;
}

H5FD_t* open_file(const char* name, unsigned flags, hid_t access, haddr_t) {
  const DriverFile* given = settings(access);
  if (!given) return nullptr;
  int mode = (flags & H5F_ACC_RDWR) != 0 ? O_RDWR : O_RDONLY;
  if ((flags & H5F_ACC_TRUNC) != 0) mode |= O_TRUNC;
  if ((flags & H5F_ACC_CREAT) != 0) mode |= O_CREAT;
  if ((flags & H5F_ACC_EXCL) != 0) mode |= O_EXCL;
  const int descriptor = ::open(name, mode | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
  struct stat status {};
  if (descriptor < 0 || ::fstat(descriptor, &status) != 0) {
    failed("open", errno);
    if (descriptor >= 0) ::close(descriptor);
    return nullptr;
  }
  if (!S_ISREG(status.st_mode)) {
    failed("open", S_ISDIR(status.st_mode) ? EISDIR : EINVAL);
    ::close(descriptor);
    return nullptr;
  }
  if (given->overlay && !stands_in(descriptor, given->overlay->mark)) {
    H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_FILE, H5E_CANTOPENFILE, "%s", not_this_file);
    ::close(descriptor);
    return nullptr;
  }
  auto out = std::make_unique<OpenFile>();
  out->file = *given;
  out->descriptor = descriptor;
  out->identity = {status.st_dev, status.st_ino};
  out->end_written = out->length_at_opening = static_cast<haddr_t>(status.st_size);
  return &out.release()->base;
}

herr_t close_file(H5FD_t* file) {
  const std::unique_ptr<OpenFile> ended(&of(file));
  return ::close(ended->descriptor) == 0 ? 0 : failed("close", errno);
}

// With a journal each opening is a file of its own to HDF5: two may lie under different journals.
int compare(const H5FD_t* a, const H5FD_t* b) {
  const OpenFile &first = of(a), &second = of(b);
  const auto plain = [](const OpenFile& open) { return !open.file.writer && !open.file.overlay; };
  if (!plain(first) || !plain(second)) return a == b ? 0 : (std::less<>()(a, b) ? -1 : 1);
  return first.identity == second.identity ? 0 : (first.identity < second.identity ? -1 : 1);
}

// The features that the driver sec2 has.
herr_t features(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_POSIX_COMPAT_HANDLE | H5FD_FEAT_SUPPORTS_SWMR_IO |
           H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t end_allocated(const H5FD_t* file, H5FD_mem_t) {
  return of(file).end_allocated;
}

herr_t set_end_allocated(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  of(file).end_allocated = address;
  return 0;
}

// A file that was cut has the length that its journal knows: the missing bytes read as zeros.
haddr_t end_of_file(const H5FD_t* file, H5FD_mem_t) {
  const OpenFile& open = of(file);
  const auto known = open.file.overlay ? static_cast<haddr_t>(open.file.overlay->image.end()) : 0;
  return std::max(open.end_written, known);
}

herr_t descriptor_of(H5FD_t* file, hid_t, void** out) {
  *out = &of(file).descriptor;
  return 0;
}

herr_t read_bytes(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, std::size_t size, void* buffer) {
  const OpenFile& open = of(file);
  auto* out = static_cast<std::byte*>(buffer);
  for (std::size_t done = 0; done < size;) {
    const ssize_t count = ::pread(open.descriptor, out + done, size - done, static_cast<off_t>(address + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed("file read", errno);
    if (count == 0) {
      // Of a file that is being written, or of one that was cut before, what is missing reads as zeros.
      if (!open.file.overlay && address + done < open.length_at_opening) {
        H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_IO, H5E_READERROR, "%s",
                 "the file became shorter while it was read");
        return -1;
      }
      std::fill(out + done, out + size, std::byte{0});
      break;
    }
    done += static_cast<std::size_t>(count);
  }
  if (open.file.overlay) open.file.overlay->image.patch(static_cast<std::int64_t>(address), {out, size});
  return 0;
}

herr_t write_bytes(H5FD_t* file, H5FD_mem_t type, hid_t, haddr_t address, std::size_t size, const void* buffer) {
  OpenFile& open = of(file);
  const auto* bytes = static_cast<const std::byte*>(buffer);
  if (open.file.writer && (type != H5FD_MEM_DRAW || open.file.writer->values_too)) {
    const int reason = open.file.writer->write(static_cast<std::int64_t>(address), {bytes, size});
    if (reason != 0) return failed_to_write(open.file, "journal write", reason);
  }
  for (std::size_t done = 0; done < size;) {
    const ssize_t count = ::pwrite(open.descriptor, bytes + done, size - done, static_cast<off_t>(address + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      const int reason = count < 0 ? errno : ENOSPC;
      // Later entries would describe values that the file does not have.
      if (open.file.writer) open.file.writer->stop();
      return failed_to_write(open.file, "file write", reason);
    }
    done += static_cast<std::size_t>(count);
  }
  open.end_written = std::max(open.end_written, address + size);
  return 0;
}

herr_t cut(H5FD_t* file, hid_t, hbool_t) {
  OpenFile& open = of(file);
  if (open.end_allocated == open.end_written) return 0;
  // After FileState::give_up() the descriptor is that of /dev/null, which has no length.
  if (::ftruncate(open.descriptor, static_cast<off_t>(open.end_allocated)) != 0 && errno != EINVAL)
    return failed_to_write(open.file, "file truncate", errno);
  open.end_written = open.end_allocated;
  return 0;
}

// Some parallel file systems have no flock() (file.cpp says why that does no harm).
herr_t lock_file(H5FD_t* file, hbool_t writing) {
  const int status = ::flock(of(file).descriptor, (writing ? LOCK_EX : LOCK_SH) | LOCK_NB);
  return status == 0 || has_no_locks(errno) ? 0 : failed("file lock", errno);
}

herr_t unlock_file(H5FD_t* file) {
  return ::flock(of(file).descriptor, LOCK_UN) == 0 || has_no_locks(errno) ? 0 : failed("file unlock", errno);
}

H5FD_class_t make_class() {
  H5FD_class_t out{};
#ifdef H5FD_CLASS_VERSION  // HDF5 1.14 and later
  out.version = H5FD_CLASS_VERSION;
  out.value = static_cast<H5FD_class_value_t>(H5_VFD_RESERVED + 77);  // of those that are free for trials
#endif
  out.name = "routescope";
  out.maxaddr = (static_cast<haddr_t>(1) << 62) - 1;
  out.fc_degree = H5F_CLOSE_WEAK;
  out.fapl_size = sizeof(const DriverFile*);
  out.open = open_file;
  out.close = close_file;
  out.cmp = compare;
  out.query = features;
  out.get_eoa = end_allocated;
  out.set_eoa = set_end_allocated;
  out.get_eof = end_of_file;
  out.get_handle = descriptor_of;
  out.read = read_bytes;
  out.write = write_bytes;
  out.truncate = cut;
  out.lock = lock_file;
  out.unlock = unlock_file;
  constexpr H5FD_mem_t map[H5FD_MEM_NTYPES] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(map), std::end(map), std::begin(out.fl_map));
  return out;
}

}  // namespace

void use_driver(hid_t access, const DriverFile& file) {
  silence();
  static const H5FD_class_t description = make_class();
  // H5close() removes drivers, so the driver is registered each time; `access` keeps it from then on.
  const Handle driver = own(H5FDregister(&description), H5FDunregister, "HDF5", "cannot register the file driver");
  const DriverFile* pointer = &file;
  check(H5Pset_driver(access, driver.id(), &pointer), "HDF5", "cannot set the file driver");
}

}  // namespace routescope::data::hdf5
