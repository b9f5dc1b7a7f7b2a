#include <array>
#include <cstring>
#include <limits>
#include <optional>

#include "bind/bind.hpp"
#include "bind/buffer_view.hpp"
#include "bind/gil.hpp"
#include "checksum/crc.hpp"
#include "checksum/crc32c.hpp"

namespace py = pybind11;

namespace kumo::bind {
namespace {

// Below this a checksum takes less time than giving the GIL away and taking it back.
constexpr std::size_t kReleaseGil = 32'768;

struct Arguments {
  PyObject* data = nullptr;
  PyObject* value = nullptr;  // absent: 0
};

// (data, value=0), by position or by name. False with an exception set.
bool parse(const char* function, PyObject* const* arguments, Py_ssize_t count, PyObject* names,
           Arguments& into) {
  if (count > 2) {
    PyErr_Format(PyExc_TypeError, "%s() takes (data, value=0), not %zd arguments", function, count);
    return false;
  }
  if (count > 0) into.data = arguments[0];
  if (count > 1) into.value = arguments[1];
  const Py_ssize_t named = names != nullptr ? PyTuple_GET_SIZE(names) : 0;
  for (Py_ssize_t i = 0; i < named; ++i) {
    PyObject* name = PyTuple_GET_ITEM(names, i);
    PyObject** slot = PyUnicode_CompareWithASCIIString(name, "data") == 0    ? &into.data
                      : PyUnicode_CompareWithASCIIString(name, "value") == 0 ? &into.value
                                                                             : nullptr;
    if (slot == nullptr || *slot != nullptr) {
      PyErr_Format(PyExc_TypeError, "%s(): argument %R is unknown or given twice", function, name);
      return false;
    }
    *slot = arguments[count + i];
  }
  if (into.data == nullptr) {
    PyErr_Format(PyExc_TypeError, "%s() needs data", function);
    return false;
  }
  return true;
}

// Not by pybind11, whose dispatch takes several times as long as the checksum of a short key.
template <typename T, T (*Function)(const void*, std::size_t, T) noexcept>
PyObject* checksum_of(const char* name, PyObject* const* arguments, Py_ssize_t count,
                      PyObject* names) {
  Arguments given;
  if (!parse(name, arguments, count, names, given)) return nullptr;
  unsigned long long before = 0;
  if (given.value != nullptr) {
    before = PyLong_AsUnsignedLongLong(given.value);
    if (before == std::numeric_limits<unsigned long long>::max() && PyErr_Occurred() != nullptr) {
      return nullptr;
    }
    if (before > std::numeric_limits<T>::max()) {
      PyErr_Format(PyExc_OverflowError, "%s(): value %R has more than %zu bits", name, given.value,
                   8 * sizeof(T));
      return nullptr;
    }
  }
  T result = static_cast<T>(before);
  try {
    const BufferView view(given.data, PyBUF_SIMPLE);
    std::optional<GilReleased> released;
    if (view.size() > kReleaseGil) released.emplace();
    result = Function(view.data(), view.size(), result);
    released.reset();  // before the view: releasing it needs the GIL
  } catch (py::error_already_set& error) {
    error.restore();
    return nullptr;
  }
  return PyLong_FromUnsignedLongLong(result);
}

PyObject* crc32(PyObject*, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  return checksum_of<std::uint32_t, &checksum::crc32>("crc32", arguments, count, names);
}
PyObject* crc32c(PyObject*, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  return checksum_of<std::uint32_t, &checksum::crc32c>("crc32c", arguments, count, names);
}
PyObject* crc64nvme(PyObject*, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  return checksum_of<std::uint64_t, &checksum::crc64nvme>("crc64nvme", arguments, count, names);
}

PyMethodDef method(const char* name,
                   PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*),
                   const char* documentation) {
  // Python's own way to keep functions of several signatures in one field.
  PyCFunction stored = nullptr;
  static_assert(sizeof(stored) == sizeof(function));
  std::memcpy(&stored, &function, sizeof(stored));
  return {name, stored, METH_FASTCALL | METH_KEYWORDS, documentation};
}

}  // namespace

void register_checksum(py::module_& m) {
  checksum::initialise();
  static std::array<PyMethodDef, 4> functions = {
      method("crc32", crc32,
             "crc32(data, value=0)\n--\n\n"
             "CRC-32 of a C-contiguous buffer, continued from ``value``."),
      method("crc32c", crc32c,
             "crc32c(data, value=0)\n--\n\n"
             "CRC-32C (Castagnoli) of a C-contiguous buffer, continued from ``value``."),
      method("crc64nvme", crc64nvme,
             "crc64nvme(data, value=0)\n--\n\n"
             "CRC-64/NVME of a C-contiguous buffer, continued from ``value``."),
      PyMethodDef{nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(m.ptr(), functions.data()) != 0) throw py::error_already_set();
  m.def("crc32_combine", &checksum::crc32_combine, py::arg("a"), py::arg("b"), py::arg("len_b"),
        "CRC-32 of A followed by B, from theirs and the length of B in bytes.");
  m.def("crc32c_combine", &checksum::crc32c_combine, py::arg("a"), py::arg("b"), py::arg("len_b"),
        "CRC-32C of A followed by B, from theirs and the length of B in bytes.");
  m.def("crc64nvme_combine", &checksum::crc64nvme_combine, py::arg("a"), py::arg("b"),
        py::arg("len_b"),
        "CRC-64/NVME of A followed by B, from theirs and the length of B in bytes.");
}

}  // namespace kumo::bind
