// What the operating system can do to files that Python has no name for.
#include <fcntl.h>
#include <linux/fs.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl/filesystem.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "bind/bind.hpp"
#include "bind/gil.hpp"

namespace kumo::bind {
namespace {

namespace py = pybind11;

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
  errno = error;
  PyErr_SetFromErrnoWithFilenameObjects(PyExc_OSError, py::cast(a.string()).ptr(),
                                        py::cast(b.string()).ptr());
  throw py::error_already_set();
}

}  // namespace

void register_files(py::module_& m) {
  m.def("exchange_paths", &exchange_paths, py::arg("a"), py::arg("b"));
}

}  // namespace kumo::bind
