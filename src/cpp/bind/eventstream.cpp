// Messages of the vnd.amazon.event-stream format, as bytes on both sides: what headers mean in
// Python is decided in kumo_crt.event_stream.
#include <pybind11/stl.h>

#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bind/bind.hpp"
#include "bind/buffer_view.hpp"
#include "bind/gil.hpp"
#include "eventstream/decoder.hpp"
#include "eventstream/encoder.hpp"

namespace py = pybind11;

namespace kumo::bind {
namespace {

namespace es = kumo::eventstream;

// Below this the work takes less time than giving the GIL away and taking it back.
constexpr std::size_t kReleaseGil = 32'768;

std::string_view view_of(const BufferView& view) {
  return {static_cast<const char*>(view.data()), view.size()};
}

py::bytes encode(const py::iterable& headers, const py::object& payload) {
  std::vector<es::Header> converted;
  for (const py::handle item : headers) {
    const auto header = py::cast<py::tuple>(item);
    const auto type = py::cast<std::uint8_t>(header[1]);
    if (type >= es::kHeaderTypes) throw py::value_error("no such type of header");
    converted.push_back({py::cast<std::string>(header[0]), static_cast<es::HeaderType>(type),
                         py::cast<std::string>(header[2])});
  }
  const BufferView view(payload, PyBUF_SIMPLE);
  std::optional<es::EncodedMessage> message;
  {
    std::optional<GilReleased> released;
    if (view.size() > kReleaseGil) released.emplace();
    message.emplace(converted, view_of(view));
  }
  return py::bytes(message->bytes());
}

py::tuple to_python(const es::Message& message) {
  py::list headers(message.headers.size());
  for (std::size_t i = 0; i < message.headers.size(); ++i) {
    const es::Header& header = message.headers[i];
    headers[i] = py::make_tuple(py::bytes(header.name), static_cast<std::uint8_t>(header.type),
                                py::bytes(header.value));
  }
  return py::make_tuple(message.offset, headers, py::bytes(message.payload));
}

class BoundDecoder {
 public:
  py::tuple feed(const py::object& data) {
    const BufferView view(data, PyBUF_SIMPLE);
    es::Fed fed;
    {
      std::optional<GilReleased> released;
      if (view.size() > kReleaseGil) released.emplace();
      // Unlocked before the GIL is taken back, so that who waits here with the GIL goes on.
      const std::lock_guard lock(mutex_);
      fed = decoder_.feed(view_of(view));
    }
    py::list messages(fed.messages.size());
    for (std::size_t i = 0; i < fed.messages.size(); ++i) {
      messages[i] = to_python(fed.messages[i]);
      fed.messages[i] = {};  // not everything twice in memory
    }
    return py::make_tuple(messages, fed.damage);
  }

  [[nodiscard]] std::size_t pending() {
    const std::lock_guard lock(mutex_);
    return decoder_.pending();
  }

  [[nodiscard]] std::uint64_t offset() {
    const std::lock_guard lock(mutex_);
    return decoder_.offset();
  }

 private:
  std::mutex mutex_;
  es::Decoder decoder_;
};

}  // namespace

void register_event_stream(py::module_& m) {
  m.def("event_stream_encode", &encode, py::arg("headers"), py::arg("payload"));
  m.def("event_stream_limits", [] {
    py::dict limits;
    limits["message"] = es::kMaxMessage;
    limits["headers"] = es::kMaxHeaders;
    limits["name"] = es::kMaxName;
    limits["value"] = es::kMaxValue;
    return limits;
  });
  py::class_<BoundDecoder>(m, "EventStreamDecoder")
      .def(py::init<>())
      .def("feed", &BoundDecoder::feed, py::arg("data"))
      .def_property_readonly("pending", &BoundDecoder::pending)
      .def_property_readonly("offset", &BoundDecoder::offset);
}

}  // namespace kumo::bind
