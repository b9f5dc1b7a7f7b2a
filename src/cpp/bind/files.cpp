// What the operating system can do to files that Python has no name for.
#include <fcntl.h>
#include <linux/fs.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl/filesystem.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string>

#include "bind/bind.hpp"
#include "bind/gil.hpp"

namespace kumo::bind {
namespace {

namespace py = pybind11;

// As os.fsdecode: a name need not be UTF-8.
py::str name_of(const std::filesystem::path& path) {
  const std::string& name = path.native();
  PyObject* decoded =
      PyUnicode_DecodeFSDefaultAndSize(name.data(), static_cast<Py_ssize_t>(name.size()));
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

void exchange_paths(const std::filesystem::path& a, const std::filesystem::path& b) {
  int error = 0;
  {
    const GilReleased released;
    // By number: older C libraries do not have the function.
    if (::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) != 0) {
      error = errno;
    }
  }
  if (error == 0) return;
  const py::str first = name_of(a);
  const py::str second = name_of(b);
  errno = error;
  PyErr_SetFromErrnoWithFilenameObjects(PyExc_OSError, first.ptr(), second.ptr());
  throw py::error_already_set();
}

// A hint: where it cannot be had, nothing is lost, and writing says what is wrong.
void reserve_space(int fd, std::uint64_t offset, std::uint64_t size) {
  const GilReleased released;
  (void)::fallocate(fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(size));
}

}  // namespace

void register_files(py::module_& m) {
  m.def("exchange_paths", &exchange_paths, py::arg("a"), py::arg("b"));
  m.def("reserve_space", &reserve_space, py::arg("fd"), py::arg("offset"), py::arg("size"));
}

}  // namespace kumo::bind
