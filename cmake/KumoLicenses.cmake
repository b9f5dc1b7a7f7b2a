# Installs the licence texts of what is linked into the extension.

set(license_destination kumo_crt/licenses)

# Prefixes made by tools/native_deps.py.
if(EXISTS "${KUMO_FOUND_PREFIX}/share/kumo-crt/licenses")
  install(DIRECTORY "${KUMO_FOUND_PREFIX}/share/kumo-crt/licenses/"
    DESTINATION ${license_destination} COMPONENT kumo_crt)
endif()
# kmpkg and vcpkg ports. Theirs take libcrypto from OpenSSL.
foreach(library IN LISTS KUMO_VERSIONED_LIBRARIES ITEMS openssl)
  if(EXISTS "${KUMO_FOUND_PREFIX}/share/${library}/copyright")
    install(FILES "${KUMO_FOUND_PREFIX}/share/${library}/copyright"
      DESTINATION ${license_destination}/${library} COMPONENT kumo_crt)
  endif()
endforeach()

# pybind11 is compiled in; its licence lies in its distribution's metadata.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
    "import importlib.metadata as m; print(next((str(f.locate()) for f in m.files('pybind11') or [] if f.name == 'LICENSE'), ''))"
  OUTPUT_VARIABLE pybind11_license OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(EXISTS "${pybind11_license}")
  install(FILES "${pybind11_license}"
    DESTINATION ${license_destination}/pybind11 COMPONENT kumo_crt)
else()
  message(WARNING "pybind11's licence was not found, and will be missing from the installation.")
endif()
