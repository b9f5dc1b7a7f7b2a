#pragma once

#include <cstdint>
#include <filesystem>

namespace kumo::rocksdb {

// Makes a MANIFEST say that all table files are in the first of its directories (db_paths,
// cf_paths): that is so where they were gathered in one. Bytes are changed in place, and the
// checksums of their records with them. Returns how many files were elsewhere.
//
// The file must be whole, and nobody may read it meanwhile. The caller syncs it.
std::uint64_t clear_path_ids(const std::filesystem::path& path);

}  // namespace kumo::rocksdb
