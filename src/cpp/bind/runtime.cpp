#include "crt/runtime.hpp"

#include <pybind11/stl.h>

#include <chrono>
#include <utility>

#include "async/io_threads.hpp"
#include "bind/bind.hpp"
#include "bind/gil.hpp"
#include "crt/error.hpp"
#include "crt/log_bridge.hpp"
#include "http/connection_pool.hpp"
#include "s3/operation.hpp"

namespace py = pybind11;

namespace kumo::bind {
namespace {

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<long>(seconds * 1000.0));
}

// Ends everything native, in the order of dependence, in `timeout` seconds for all of it. True if
// nothing was left running.
bool shutdown(double timeout) {
  const GilReleased released;
  // What comes last has its time, however long the others take.
  const crt::Deadline deadline(milliseconds(timeout) - crt::Runtime::kParkTime);
  if (crt::Runtime::forked()) return true;  // the threads are the parent's
  bool clean = s3::cancel_all(deadline);
  clean = s3::wait_for_clients(deadline) && clean;
  clean = http::wait_for_pools(deadline) && clean;
  clean = async::IoThreads::instance().stop(deadline) && clean;
  clean = crt::Runtime::shutdown(deadline) && clean;
  crt::LogBridge::instance().stop();
  return clean;
}

py::list take_log_lines(double timeout) {
  std::vector<crt::LogLine> lines;
  {
    const GilReleased released;
    lines = crt::LogBridge::instance().take(milliseconds(timeout));
  }
  py::list out;
  for (const auto& line : lines) {
    // Lines hold bytes from the network: undecodable ones must not lose the rest.
    PyObject* text = PyUnicode_DecodeUTF8(line.text.data(),
                                          static_cast<Py_ssize_t>(line.text.size()), "replace");
    if (text == nullptr) throw py::error_already_set();
    out.append(py::make_tuple(line.level, line.subject, py::reinterpret_steal<py::object>(text)));
  }
  return out;
}

}  // namespace

void register_runtime(py::module_& m) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> crt_error;
  crt_error.call_once_and_store_result(
      [&m] { return py::object(py::exception<crt::Error>(m, "CrtError", PyExc_RuntimeError)); });
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(std::move(pointer));
    } catch (const crt::Error& error) {
      const py::object& type = crt_error.get_stored();
      py::object instance = type(error.what());
      instance.attr("name") = crt::error_name(error.code());
      PyErr_SetObject(type.ptr(), instance.ptr());
    }
  });

  m.def("init_libraries", &crt::init_libraries, py::call_guard<GilReleased>());
  m.def("shutdown", &shutdown, py::arg("timeout"));
  m.def("log_subjects", &crt::log_subjects);
  m.def(
      "set_log_level", [](int level) { crt::LogBridge::instance().set_level(level); },
      py::arg("level"));
  m.def(
      "set_subject_log_level",
      [](std::uint32_t subject, int level) {
        crt::LogBridge::instance().set_subject_level(subject, level);
      },
      py::arg("subject"), py::arg("level"));
  m.def("take_log_lines", &take_log_lines, py::arg("timeout"));
  m.def("log_stopped", [] { return crt::LogBridge::instance().stopped(); });
}

}  // namespace kumo::bind
