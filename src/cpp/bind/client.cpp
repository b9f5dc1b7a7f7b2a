#include "s3/client.hpp"

#include <pybind11/stl.h>

#include <list>

#include "async/completion_queue.hpp"
#include "bind/bind.hpp"
#include "bind/buffer_view.hpp"
#include "bind/gil.hpp"
#include "s3/operation.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace kumo::bind {
namespace {

// How often a waiting thread looks for signals: the upper bound of Ctrl-C's delay.
constexpr auto kSignalSlice = std::chrono::milliseconds(50);
// Of an answer that is no object's content. S3's longest, 1,000 keys of 1,024 bytes that are
// written as escapes, have about 4 MiB.
constexpr std::uint64_t kMaxDocument = 64 << 20;

// A client as Python holds it. Its teardown may wait for others, so not with the GIL; pybind11's
// own means for that (release_gil_before_calling_cpp_dtor) crashes where a daemon thread does it at
// the end of the interpreter, see gil.hpp.
class BoundClient {
 public:
  explicit BoundClient(std::shared_ptr<s3::Client> client) : client_(std::move(client)) {}
  ~BoundClient() {
    const GilReleased released;
    client_.reset();
  }
  BoundClient(const BoundClient&) = delete;
  BoundClient& operator=(const BoundClient&) = delete;

  [[nodiscard]] const std::shared_ptr<s3::Client>& get() const noexcept { return client_; }

 private:
  std::shared_ptr<s3::Client> client_;
};

// An operation with the Python memory it borrows.
class BoundOperation {
 public:
  BoundOperation(std::shared_ptr<s3::Operation> operation, BufferView body, BufferView sink)
      : operation_(std::move(operation)), body_(std::move(body)), sink_(std::move(sink)) {}

  BoundOperation(const BoundOperation&) = delete;
  BoundOperation& operator=(const BoundOperation&) = delete;

  // Dropped before its end (an interrupted call): the native side still uses the memory, so it
  // is kept until a later call finds the operation over.
  ~BoundOperation() {
    if (operation_->done()) return;
    // In a fork, a thread that exists only in the parent may hold the locks.
    if (!crt::Runtime::forked()) operation_->cancel();
    if (body_ || sink_) {
      orphans().push_back({std::move(operation_), std::move(body_), std::move(sink_)});
    }
  }

  static void collect_orphans() {
    // Off the list first: releasing a view may run Python code, and that may come here again.
    std::list<Orphan> over;
    auto& all = orphans();
    for (auto it = all.begin(); it != all.end();) {
      const auto here = it++;
      if (here->operation->done()) over.splice(over.end(), all, here);
    }
  }

  [[nodiscard]] s3::Operation& get() const noexcept { return *operation_; }

  void release_buffers() {
    body_ = BufferView();
    sink_ = BufferView();
  }

 private:
  struct Orphan {
    std::shared_ptr<s3::Operation> operation;
    BufferView body;
    BufferView sink;
  };

  // Guarded by the GIL; leaked, as releasing views at static destruction would need Python.
  static std::list<Orphan>& orphans() {
    static auto* list = new std::list<Orphan>();
    return *list;
  }

  std::shared_ptr<s3::Operation> operation_;
  BufferView body_;
  BufferView sink_;
};

// A response body that lives in native memory, lent to Python read-only.
struct NativeBody {
  async::AlignedBuffer memory;
  std::size_t size = 0;

  [[nodiscard]] py::buffer_info lend(bool readonly) const {
    static std::uint8_t empty = 0;
    return {memory ? memory.data() : &empty, 1, "B", 1, {size}, {1}, readonly};
  }
};

// The same memory, for those who fill in the rest of a truncated body.
struct WritableBody {
  std::shared_ptr<NativeBody> body;
};

// What an operation was answered.
struct BoundResponse {
  explicit BoundResponse(s3::Response response)
      : value(std::move(response)), body(std::make_shared<NativeBody>()) {
    body->memory = std::move(value.body);
    body->size = value.body_size;
  }
  s3::Response value;
  std::shared_ptr<NativeBody> body;
};

py::str text(const std::string& value) {
  PyObject* decoded =
      PyUnicode_DecodeUTF8(value.data(), static_cast<Py_ssize_t>(value.size()), "surrogateescape");
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

std::vector<std::uint64_t> take(async::CompletionQueue& queue, double timeout) {
  const auto deadline = std::chrono::steady_clock::now() +
                        std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                            std::chrono::duration<double>(timeout));
  for (;;) {
    std::vector<std::uint64_t> done;
    {
      const GilReleased released;
      const auto left = deadline - std::chrono::steady_clock::now();
      done = queue.take(
          std::clamp<std::chrono::nanoseconds>(left, std::chrono::nanoseconds(0), kSignalSlice));
    }
    // Ids that were taken must reach the caller, so signals wait for the next turn.
    if (!done.empty()) return done;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (std::chrono::steady_clock::now() >= deadline) return done;
  }
}

std::unique_ptr<BoundClient> make_client(
    const std::string& region, const std::string& ca_file, bool verify, bool anonymous,
    std::optional<std::string> access_key_id, std::optional<std::string> secret_access_key,
    std::optional<std::string> session_token, std::optional<std::string> profile, std::string proxy,
    std::uint32_t max_connections, std::uint16_t event_loops, std::uint32_t connect_timeout_ms,
    std::uint32_t stall_timeout_s, bool tls_at_once) {
  s3::ClientOptions options;
  options.region = region;
  options.ca_file = ca_file;
  options.verify = verify;
  options.credentials = {anonymous, std::move(access_key_id), std::move(secret_access_key),
                         std::move(session_token), std::move(profile)};
  options.proxy = std::move(proxy);
  options.max_connections = max_connections;
  options.event_loops = event_loops;
  options.connect_timeout_ms = connect_timeout_ms;
  options.stall_timeout_s = stall_timeout_s;
  options.tls_at_once = tls_at_once;
  std::shared_ptr<s3::Client> made;
  {
    const GilReleased released;
    made = s3::Client::create(options);
  }
  return std::make_unique<BoundClient>(std::move(made));
}

s3::Sink make_sink(const py::object& sink, BufferView& view) {
  if (sink.is_none()) return s3::CollectSink{};
  if (py::isinstance<py::str>(sink)) {
    const auto name = sink.cast<std::string>();
    if (name == "discard") return s3::DiscardSink{};
    if (name == "document") return s3::CollectSink{kMaxDocument};
    throw py::value_error("sink: a writable buffer, (fd, offset), 'discard', 'document' or None");
  }
  if (py::isinstance<py::tuple>(sink)) {
    const auto [fd, offset] = sink.cast<std::pair<int, std::uint64_t>>();
    return s3::FileSink{crt::FileDescriptor::duplicate(fd), offset};
  }
  view = BufferView(sink, PyBUF_WRITABLE);
  return s3::MemorySink{static_cast<std::uint8_t*>(view.data()), view.size()};
}

s3::Body make_body(const py::object& body, BufferView& view) {
  if (body.is_none()) return s3::NoBody{};
  if (py::isinstance<py::tuple>(body)) {
    const auto [fd, offset, size] = body.cast<std::tuple<int, std::uint64_t, std::size_t>>();
    return s3::FileBody{crt::FileDescriptor::duplicate(fd), offset, size};
  }
  view = BufferView(body, PyBUF_SIMPLE);
  return s3::MemoryBody{static_cast<const std::uint8_t*>(view.data()), view.size()};
}

std::unique_ptr<BoundOperation> submit(const BoundClient& client,
                                       const std::shared_ptr<async::CompletionQueue>& queue,
                                       std::uint64_t id, std::string operation, std::string method,
                                       std::string endpoint, std::string target,
                                       s3::Headers headers, const py::object& body,
                                       bool send_crc32c, bool crc32c_trailing,
                                       const py::object& sink, bool crc32c_of_response,
                                       std::uint64_t stop_after, bool any_credentials) {
  BoundOperation::collect_orphans();
  BufferView body_view;
  BufferView sink_view;
  s3::Request request;
  request.operation = std::move(operation);
  request.method = std::move(method);
  request.endpoint = std::move(endpoint);
  request.target = std::move(target);
  request.headers = std::move(headers);
  request.body = make_body(body, body_view);
  request.send_crc32c = send_crc32c;
  request.crc32c_trailing = crc32c_trailing;
  request.sink = make_sink(sink, sink_view);
  request.crc32c_of_response = crc32c_of_response;
  request.stop_after = stop_after;
  request.any_credentials = any_credentials;
  auto native = std::make_shared<s3::Operation>(client.get(), std::move(request), queue, id);
  auto bound = std::make_unique<BoundOperation>(native, std::move(body_view), std::move(sink_view));
  const GilReleased released;
  native->start();
  return bound;
}

py::dict quantiles(const s3::Histogram& histogram) {
  const auto milliseconds = [](std::uint64_t micros) { return static_cast<double>(micros) / 1000; };
  const double count = static_cast<double>(std::max<std::uint64_t>(histogram.count(), 1));
  py::dict out;
  out["count"] = histogram.count();
  out["mean"] = milliseconds(histogram.sum()) / count;
  out["p50"] = milliseconds(histogram.quantile(0.5));
  out["p90"] = milliseconds(histogram.quantile(0.9));
  out["p99"] = milliseconds(histogram.quantile(0.99));
  out["p999"] = milliseconds(histogram.quantile(0.999));
  out["max"] = milliseconds(histogram.max());
  return out;
}

py::dict metrics_of(const BoundClient& bound) {
  s3::Client& client = *bound.get();
  std::map<std::string, s3::OperationMetrics, std::less<>> operations;
  s3::Client::Connections connections;
  {
    const GilReleased released;
    operations = client.metrics().snapshot();
    connections = client.connections();
  }
  py::dict by_operation;
  for (const auto& [name, sums] : operations) {
    py::dict one;
    one["succeeded"] = sums.succeeded;
    one["failed"] = sums.failed;
    one["bytes_sent"] = sums.bytes_sent;
    one["bytes_received"] = sums.bytes_received;
    one["latency_ms"] = quantiles(sums.latency);
    one["first_byte_ms"] = quantiles(sums.first_byte);
    by_operation[text(name)] = one;
  }
  py::dict pool;
  pool["idle"] = connections.idle;
  pool["leased"] = connections.leased;
  pool["waiting"] = connections.waiting;
  py::dict out;
  out["operations"] = by_operation;
  out["connections"] = pool;
  return out;
}

BoundResponse response_of(BoundOperation& operation) {
  if (!operation.get().done()) throw std::runtime_error("the operation is not over");
  operation.release_buffers();
  return BoundResponse(operation.get().take_response());
}

}  // namespace

void register_client(py::module_& m) {
  py::class_<async::CompletionQueue, std::shared_ptr<async::CompletionQueue>>(m, "CompletionQueue")
      .def(py::init<>())
      .def("take", &take, "timeout"_a)
      .def("fileno", &async::CompletionQueue::fileno);

  py::class_<BoundClient>(m, "Client")
      .def(py::init(&make_client), py::kw_only(), "region"_a, "ca_file"_a, "verify"_a,
           "anonymous"_a, "access_key_id"_a, "secret_access_key"_a, "session_token"_a, "profile"_a,
           "proxy"_a, "max_connections"_a, "event_loops"_a, "connect_timeout_ms"_a,
           "stall_timeout_s"_a, "tls_at_once"_a)
      .def("submit", &submit, "queue"_a, "call_id"_a, py::kw_only(), "operation"_a, "method"_a,
           "endpoint"_a, "target"_a, "headers"_a, "body"_a, "send_crc32c"_a, "crc32c_trailing"_a,
           "sink"_a, "crc32c_of_response"_a, "stop_after"_a, "any_credentials"_a)
      .def(
          "credentials_expired",
          [](const BoundClient& client, std::uint64_t generation) {
            client.get()->credentials().expired(generation);
          },
          "signed_with"_a, py::call_guard<GilReleased>())
      .def(
          "set_clock_offset",
          [](const BoundClient& client, std::int64_t offset) {
            client.get()->set_clock_offset(offset);
          },
          "milliseconds"_a)
      .def_property_readonly("clock_offset",
                             [](const BoundClient& client) { return client.get()->clock_offset(); })
      .def("metrics", &metrics_of)
      .def_property_readonly("tls_established", [](const BoundClient& client) {
        return client.get()->watch()->succeeded.load(std::memory_order_relaxed);
      });

  py::class_<BoundOperation>(m, "Operation")
      .def_property_readonly("id", [](const BoundOperation& op) { return op.get().id(); })
      .def_property_readonly("done", [](const BoundOperation& op) { return op.get().done(); })
      .def_property_readonly("expected",
                             [](const BoundOperation& op) { return op.get().expected(); })
      .def_property_readonly("transferred",
                             [](const BoundOperation& op) { return op.get().transferred(); })
      .def(
          "cancel", [](const BoundOperation& op) { op.get().cancel(); },
          py::call_guard<GilReleased>())
      .def("response", &response_of);

  py::class_<NativeBody, std::shared_ptr<NativeBody>>(m, "NativeBody", py::buffer_protocol())
      .def_buffer([](NativeBody& body) { return body.lend(/*readonly=*/true); })
      .def("__len__", [](const NativeBody& body) { return body.size; })
      .def("writable", [](const std::shared_ptr<NativeBody>& body) { return WritableBody{body}; });

  py::class_<WritableBody>(m, "WritableBody", py::buffer_protocol())
      .def_buffer([](WritableBody& writable) { return writable.body->lend(/*readonly=*/false); })
      .def("__len__", [](const WritableBody& writable) { return writable.body->size; });

  py::class_<BoundResponse>(m, "Response")
      .def_property_readonly("error_code",
                             [](const BoundResponse& r) { return r.value.error_code; })
      .def_property_readonly("error_name",
                             [](const BoundResponse& r) { return text(r.value.error_name); })
      .def_property_readonly("error_text",
                             [](const BoundResponse& r) { return text(r.value.error_text); })
      .def_property_readonly("status", [](const BoundResponse& r) { return r.value.status; })
      .def_property_readonly("headers",
                             [](const BoundResponse& r) {
                               py::list out;
                               for (const auto& [name, value] : r.value.headers) {
                                 out.append(py::make_tuple(text(name), text(value)));
                               }
                               return out;
                             })
      .def_property_readonly("body", [](const BoundResponse& r) { return r.body; })
      .def_property_readonly("error_body",
                             [](const BoundResponse& r) { return py::bytes(r.value.error_body); })
      .def_property_readonly("received", [](const BoundResponse& r) { return r.value.received; })
      .def_property_readonly("truncated", [](const BoundResponse& r) { return r.value.truncated; })
      .def_property_readonly("signed_with",
                             [](const BoundResponse& r) { return r.value.signed_with; })
      .def_property_readonly("crc32c_sent",
                             [](const BoundResponse& r) { return r.value.crc32c_sent; })
      .def_property_readonly("crc32c_received",
                             [](const BoundResponse& r) { return r.value.crc32c_received; });
}

}  // namespace kumo::bind
