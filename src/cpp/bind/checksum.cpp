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

template <typename T, T (*Function)(const void*, std::size_t, T) noexcept>
T checksum_of(const py::object& data, T value) {
  const BufferView view(data, PyBUF_SIMPLE);
  std::optional<GilReleased> released;
  if (view.size() > kReleaseGil) released.emplace();
  const T result = Function(view.data(), view.size(), value);
  released.reset();  // before the view: releasing it needs the GIL
  return result;
}

}  // namespace

void register_checksum(py::module_& m) {
  checksum::initialise();
  const auto data = py::arg("data");
  const auto value = py::arg("value") = 0;
  m.def("crc32", &checksum_of<std::uint32_t, &checksum::crc32>, data, value);
  m.def("crc32c", &checksum_of<std::uint32_t, &checksum::crc32c>, data, value);
  m.def("crc64nvme", &checksum_of<std::uint64_t, &checksum::crc64nvme>, data, value);
  m.def("crc32_combine", &checksum::crc32_combine, py::arg("a"), py::arg("b"), py::arg("len_b"));
  m.def("crc32c_combine", &checksum::crc32c_combine, py::arg("a"), py::arg("b"), py::arg("len_b"));
  m.def("crc64nvme_combine", &checksum::crc64nvme_combine, py::arg("a"), py::arg("b"),
        py::arg("len_b"));
}

}  // namespace kumo::bind
