// Sealed files: what is done with them is decided in kumo_crt.backup.
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <typeinfo>
#include <utility>

#include "bind/bind.hpp"
#include "bind/buffer_view.hpp"
#include "bind/gil.hpp"
#include "crypto/seal.hpp"

namespace py = pybind11;

namespace kumo::bind {
namespace {

using crypto::Plaintext;

template <typename Array>
py::bytes to_bytes(const Array& array) {
  return {reinterpret_cast<const char*>(array.data()), array.size()};
}

std::string_view text_of(const BufferView& view) {
  return {static_cast<const char*>(view.data()), view.size()};
}

crypto::Salt salt_of(const py::object& object) {
  const BufferView view(object, PyBUF_SIMPLE);
  if (view.size() != crypto::kSalt) throw py::value_error("a salt has 16 bytes");
  crypto::Salt salt;
  std::memcpy(salt.data(), view.data(), salt.size());
  return salt;
}

// A descriptor with the size of its content, or a buffer. Made and destroyed with the GIL.
class Content {
 public:
  Content(const py::object& source, std::uint64_t size)
      : plaintext_(Plaintext::memory(nullptr, 0)) {
    if (size > crypto::kMaxSize) throw py::value_error("more than an object can have");
    if (PyLong_Check(source.ptr()) != 0) {
      plaintext_ = Plaintext::file(py::cast<int>(source), size);
      return;
    }
    view_ = BufferView(source, PyBUF_SIMPLE);
    if (view_.size() != size) throw py::value_error("the buffer has not the size that was said");
    plaintext_ = Plaintext::memory(view_.data(), size);
  }

  [[nodiscard]] const Plaintext& get() const noexcept { return plaintext_; }

 private:
  BufferView view_;
  Plaintext plaintext_;
};

class BoundExamination {
 public:
  explicit BoundExamination(crypto::Examination examination)
      : examination_(std::move(examination)) {}

  void read(const py::object& source, std::uint64_t size, std::uint64_t stop) {
    const Content content(source, size);
    const GilReleased released;
    const std::lock_guard lock(mutex_);
    examination_.read(content.get(), stop);
  }

  py::tuple finish() {
    std::uint32_t crc = 0;
    {
      const GilReleased released;
      const std::lock_guard lock(mutex_);
      examination_.finish();
      crc = examination_.crc32c();
    }
    return py::make_tuple(to_bytes(examination_.salt()), crc);
  }

  // What is over does not change any more.
  [[nodiscard]] const crypto::Examination& finished() {
    const std::lock_guard lock(mutex_);
    if (!examination_.finished()) throw std::logic_error("the examination is not over");
    return examination_;
  }

 private:
  std::mutex mutex_;
  crypto::Examination examination_;
};

std::unique_ptr<crypto::SealingKey> make_key(const py::object& material) {
  const BufferView view(material, PyBUF_SIMPLE);
  if (view.size() != crypto::Secret::kSize) throw py::value_error("a key has 32 bytes");
  return std::make_unique<crypto::SealingKey>(static_cast<const std::uint8_t*>(view.data()));
}

void seal(const crypto::SealingKey& key, const py::object& source, std::uint64_t size,
          BoundExamination& examined, std::uint64_t start, std::uint64_t stop,
          const py::object& into) {
  const Content content(source, size);
  const BufferView out(into, PyBUF_WRITABLE);
  if (start > stop || stop - start != out.size()) {
    throw py::value_error("into: not as long as what is to be written");
  }
  const GilReleased released;
  key.seal(content.get(), examined.finished(), start, stop, static_cast<std::uint8_t*>(out.data()));
}

std::size_t open(const crypto::SealingKey& key, const py::object& data, const py::object& salt,
                 std::uint64_t first, bool final) {
  const crypto::Salt checked = salt_of(salt);
  const BufferView view(data, PyBUF_WRITABLE);
  const GilReleased released;
  return key.open(static_cast<std::uint8_t*>(view.data()), view.size(), checked, first, final);
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(std::move(pointer));
  } catch (const std::system_error& error) {
    if (typeid(error) != typeid(std::system_error)) throw;  // others have a translator
    const py::object arguments = py::make_tuple(error.code().value(), std::string(error.what()));
    PyErr_SetObject(PyExc_OSError, arguments.ptr());
  }
}

}  // namespace

void register_crypto(py::module_& m) {
  py::register_exception<crypto::SealError>(m, "SealError", PyExc_ValueError);
  py::register_exception_translator(&translate);
  m.attr("SEALED_CHUNK") = crypto::kChunk;
  m.attr("SEALED_HEADER") = crypto::kHeader;
  m.attr("SEALED_TAG") = crypto::kTag;
  m.def("sealed_size", &crypto::sealed_size, py::arg("size"));
  py::class_<BoundExamination>(m, "Examination")
      .def("read", &BoundExamination::read, py::arg("source"), py::arg("size"), py::arg("stop"))
      .def("finish", &BoundExamination::finish);
  py::class_<crypto::SealingKey>(m, "SealingKey")
      .def(py::init(&make_key), py::arg("material"))
      .def(
          "mac",
          [](const crypto::SealingKey& key, const std::string& purpose, const py::object& data) {
            const BufferView view(data, PyBUF_SIMPLE);
            crypto::Mac result;
            {
              const GilReleased released;
              result = key.mac(purpose, text_of(view));
            }
            return to_bytes(result);
          },
          py::arg("purpose"), py::arg("data"))
      .def(
          "header",
          [](const crypto::SealingKey& key, const py::object& salt) {
            return to_bytes(key.header(salt_of(salt)));
          },
          py::arg("salt"))
      .def("examine",
           [](const crypto::SealingKey& key) {
             return std::make_unique<BoundExamination>(key.examine());
           })
      .def("seal", &seal, py::arg("source"), py::arg("size"), py::arg("examined"), py::arg("start"),
           py::arg("stop"), py::arg("into"))
      .def("open", &open, py::arg("data"), py::arg("salt"), py::arg("first"), py::arg("final"))
      .def("material", [](const crypto::SealingKey& key) {
        return py::bytes(reinterpret_cast<const char*>(key.material().data()),
                         crypto::Secret::kSize);
      });
}

}  // namespace kumo::bind
