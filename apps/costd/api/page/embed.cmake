# Writes the page's files as C arrays, plain and compressed, each with an ETag made of its content.
#
#   cmake -D OUT=page_data.c -D WORK=FOLDER -D FILES=a;b -P embed.cmake
#
# index.html is "/"; every other file is /page/NAME.
set(type.html "text/html; charset=utf-8")
set(type.js "text/javascript; charset=utf-8")
set(type.css "text/css; charset=utf-8")

function(put_bytes name path)
  file(READ ${path} hex HEX)
  # A gzip header holds the time of packing, which MTIME below does not reach: 0 is "no time" (RFC 1952, 2.3.1).
  string(REGEX REPLACE "^(1f8b08..)........" "\\100000000" hex "${hex}")
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(................................................................................)" "\\1\n    "
         bytes "${bytes}")
  file(APPEND ${OUT} "static const unsigned char ${name}[] = {\n    ${bytes}\n};\n")
endfunction()

file(WRITE ${OUT} "/* Made by embed.cmake. */\n#include \"cost_page.h\"\n\n")
set(number 0)
set(rows "")
foreach(path ${FILES})
  get_filename_component(name ${path} NAME)
  get_filename_component(extension ${path} LAST_EXT)
  set(address "/page/${name}")
  if(name STREQUAL "index.html")
    set(address "/")
  endif()
  file(SHA256 ${path} hash)
  string(SUBSTRING ${hash} 0 16 hash)
  file(ARCHIVE_CREATE OUTPUT ${WORK}/${name}.gz PATHS ${path} FORMAT raw COMPRESSION GZip COMPRESSION_LEVEL 9
       MTIME "1970-01-01 00:00:00 UTC")
  put_bytes(plain${number} ${path})
  put_bytes(gzip${number} ${WORK}/${name}.gz)
  string(APPEND rows "    { \"${address}\", \"${type${extension}}\", \"${hash}\",\n      plain${number}, sizeof plain${number}, "
                     "gzip${number}, sizeof gzip${number} },\n")
  math(EXPR number "${number} + 1")
endforeach()
file(APPEND ${OUT} "\nconst struct page_file page_files[] = {\n${rows}};\nconst size_t page_n_files = ${number};\n")
