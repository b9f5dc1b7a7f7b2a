#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace kumo::bench {

struct Object {
  std::uint64_t size = 0;
  std::int64_t modified = 0;
  std::string etag;  // without quotes
};

struct Part {
  std::uint64_t size = 0;
  std::uint32_t crc32c = 0;  // of the content, where it was checked
  bool checked = false;
};

struct Upload {
  std::map<unsigned, Part> parts;
};

// What was uploaded: names and sizes, no content. Keys "generated/<bytes>/…" are always there.
class Store {
 public:
  // `path` is bucket/key.
  const Object& put(std::string path, std::uint64_t size, std::size_t parts);
  void remove(const std::string& path) { objects_.erase(path); }
  [[nodiscard]] std::optional<Object> find(const std::string& path) const;
  [[nodiscard]] const std::map<std::string, Object>& objects() const noexcept { return objects_; }

  std::string begin_upload();
  // nullptr: no such upload.
  [[nodiscard]] Upload* upload(std::string_view id);
  void end_upload(std::string_view id);

 private:
  [[nodiscard]] std::string new_etag(std::size_t parts);

  std::map<std::string, Object> objects_;
  std::map<std::string, Upload, std::less<>> uploads_;
  std::uint64_t counter_ = 0;
};

}  // namespace kumo::bench
