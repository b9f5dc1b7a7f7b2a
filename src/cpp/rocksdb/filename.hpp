#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace kumo::rocksdb {

enum class FileKind : std::uint8_t {
  kSst,
  kBlob,
  kWal,
  kManifest,
  kOptions,
  kCurrent,
  kIdentity,
  kLock,
  kInfoLog,
  kTemp,
  kOther,
};

[[nodiscard]] const char* file_kind_name(FileKind kind) noexcept;

struct FileName {
  FileKind kind = FileKind::kOther;
  std::optional<std::uint64_t> number;
};

// What a file in a database directory is, by its name alone (no directory part).
[[nodiscard]] FileName classify_file(std::string_view name);

// The MANIFEST's name that the file CURRENT holds: exactly "MANIFEST-<number>\n".
[[nodiscard]] std::string read_current(const std::filesystem::path& path);

}  // namespace kumo::rocksdb
