# Turns page.html into page_html.c in the build folder, whenever the page changes.
set(page ${CMAKE_CURRENT_LIST_DIR}/page.html)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${page})
file(READ ${page} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/page_html.c CONTENT
"/* Generated from server/page/page.html by embed.cmake. */
#include \"server/page/page.h\"

static const unsigned char html[] = {${bytes}};

const char *cria_page_html(size_t *length) {
    *length = sizeof html;
    return (const char *)html;
}
")
target_sources(cria_server PRIVATE ${CMAKE_BINARY_DIR}/page_html.c)
