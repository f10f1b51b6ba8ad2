/* The restricted pickle machine: protocols 2 to 5, opcodes as Python's pickletools describes them. */
#include "models/weights/pickle.h"

#include "models/weights/reader.h"

enum { OP_LIMIT_TEXT = 1 << 20 };

typedef enum { MAKES_STORAGE, MAKES_DICT, MAKES_TENSOR, MAKES_PARAMETER } global_role;

typedef struct {
    const char *module, *name;
    global_role role;
    cria_type type;
} global_row;

/* All that may be named. */
static const global_row GLOBALS[] = {
    {"collections", "OrderedDict", MAKES_DICT, CRIA_F32},
    {"torch._utils", "_rebuild_tensor_v2", MAKES_TENSOR, CRIA_F32},
    {"torch._utils", "_rebuild_parameter", MAKES_PARAMETER, CRIA_F32},
    {"torch", "FloatStorage", MAKES_STORAGE, CRIA_F32},
    {"torch", "HalfStorage", MAKES_STORAGE, CRIA_F16},
    {"torch", "BFloat16Storage", MAKES_STORAGE, CRIA_BF16},
    {"torch", "DoubleStorage", MAKES_STORAGE, CRIA_F64},
    {"torch", "LongStorage", MAKES_STORAGE, CRIA_I64},
    {"torch", "IntStorage", MAKES_STORAGE, CRIA_I32},
    {"torch", "ShortStorage", MAKES_STORAGE, CRIA_I16},
    {"torch", "CharStorage", MAKES_STORAGE, CRIA_I8},
    {"torch", "ByteStorage", MAKES_STORAGE, CRIA_U8},
    {"torch", "BoolStorage", MAKES_STORAGE, CRIA_BOOL},
};

typedef struct {
    const char *name;
    cria_cursor cursor;
    cria_arena *arena;
    cria_error *err;
    cria_pickle_items stack, memo;
    size_t at; /* of the opcode being run, for messages */
} machine;

/* --- values and the stack -------------------------------------------------------------------------------------- */

static cria_status bad(const machine *m, const char *what) {
    return cria_fail(m->err, CRIA_ERR_FORMAT, "%s: pickle byte %zu: %s", m->name, m->at, what);
}

static cria_status no_memory(const machine *m) {
    return cria_fail(m->err, CRIA_ERR_MEMORY, "%s: its pickle needs too much memory", m->name);
}

/* Grows in the arena: what is left behind adds up to less than what is kept. */
static cria_status append(machine *m, cria_pickle_items *list, cria_pickle_value *value) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        cria_pickle_value **moved = cria_arena_alloc_array(m->arena, capacity, sizeof *moved);
        if (!moved) return no_memory(m);
        if (list->count) memcpy(moved, list->items, list->count * sizeof *moved);
        list->items = moved;
        list->capacity = capacity;
    }
    list->items[list->count++] = value;
    return CRIA_OK;
}

static cria_status push(machine *m, cria_pickle_value value) {
    cria_pickle_value *copy = cria_arena_alloc(m->arena, sizeof *copy);
    if (!copy) return no_memory(m);
    *copy = value;
    return append(m, &m->stack, copy);
}

static cria_status push_kind(machine *m, cria_pickle_kind kind) {
    return push(m, (cria_pickle_value){.kind = kind});
}

static cria_status push_bool(machine *m, bool value) {
    return push(m, (cria_pickle_value){.kind = CRIA_PICKLE_BOOL, .as.boolean = value});
}

static cria_status push_int(machine *m, int64_t value) {
    return push(m, (cria_pickle_value){.kind = CRIA_PICKLE_INT, .as.integer = value});
}

/* NULL where the stack is empty or a mark lies on top. */
static cria_pickle_value *pop(machine *m) {
    if (m->stack.count == 0) return NULL;
    cria_pickle_value *value = m->stack.items[m->stack.count - 1];
    if (value->kind == CRIA_PICKLE_MARK) return NULL;
    m->stack.count--;
    return value;
}

static cria_pickle_value *top(const machine *m) {
    return m->stack.count ? m->stack.items[m->stack.count - 1] : NULL;
}

/* Takes what lies above the topmost mark, and the mark. The items stay where they are until the next push. */
static bool pop_to_mark(machine *m, cria_pickle_value ***items, size_t *count) {
    size_t i = m->stack.count;
    while (i > 0 && m->stack.items[i - 1]->kind != CRIA_PICKLE_MARK) i--;
    if (i == 0) return false;
    *items = m->stack.items + i;
    *count = m->stack.count - i;
    m->stack.count = i - 1;
    return true;
}

static cria_status push_tuple(machine *m, cria_pickle_value **items, size_t count) {
    cria_pickle_value **copy = cria_arena_alloc_array(m->arena, count + 1, sizeof *copy);
    if (!copy) return no_memory(m);
    if (count) memcpy(copy, items, count * sizeof *copy);
    return push(m, (cria_pickle_value){.kind = CRIA_PICKLE_TUPLE, .as.items = {copy, count, count}});
}

/* --- globals and what they make -------------------------------------------------------------------------------- */

static bool text_is(cria_pickle_text text, const char *expected) {
    return text.length == strlen(expected) && memcmp(text.bytes, expected, text.length) == 0;
}

static cria_status push_global(machine *m, cria_pickle_text module, cria_pickle_text name) {
    for (size_t i = 0; i < sizeof GLOBALS / sizeof *GLOBALS; i++) {
        if (!text_is(module, GLOBALS[i].module) || !text_is(name, GLOBALS[i].name)) continue;
        return push(m, (cria_pickle_value){.kind = CRIA_PICKLE_GLOBAL, .as.global = i});
    }
    int module_shown = module.length < 80 ? (int)module.length : 80,
        name_shown = name.length < 80 ? (int)name.length : 80;
    return cria_fail(m->err, CRIA_ERR_UNSUPPORTED,
                     "%s: its pickle asks for %.*s.%.*s; only what tensors need is allowed, nothing is executed",
                     m->name, module_shown, module.bytes, name_shown, name.bytes);
}

static bool take_line(machine *m, cria_pickle_text *out) {
    cria_cursor *c = &m->cursor;
    size_t left = c->size - c->at;
    const uint8_t *begin = c->data + c->at;
    const uint8_t *end = memchr(begin, '\n', left < OP_LIMIT_TEXT ? left : OP_LIMIT_TEXT);
    if (!end) return false;
    *out = (cria_pickle_text){(const char *)begin, (size_t)(end - begin)};
    c->at += out->length + 1;
    return true;
}

/* ('storage', torch.FloatStorage, '0', 'cpu', 768): the only persistent id that torch writes. */
static cria_status push_storage(machine *m) {
    const cria_pickle_value *id = pop(m);
    if (!id || id->kind != CRIA_PICKLE_TUPLE || id->as.items.count != 5) return bad(m, "not the id of a storage");
    cria_pickle_value **items = id->as.items.items;
    bool fits = items[0]->kind == CRIA_PICKLE_TEXT && text_is(items[0]->as.text, "storage") &&
                items[1]->kind == CRIA_PICKLE_GLOBAL && GLOBALS[items[1]->as.global].role == MAKES_STORAGE &&
                items[2]->kind == CRIA_PICKLE_TEXT && items[4]->kind == CRIA_PICKLE_INT && items[4]->as.integer >= 0;
    if (!fits) return bad(m, "not the id of a storage");
    cria_pickle_storage storage = {GLOBALS[items[1]->as.global].type, items[2]->as.text, items[4]->as.integer};
    return push(m, (cria_pickle_value){.kind = CRIA_PICKLE_STORAGE, .as.storage = storage});
}

/* A tuple of integers that are not negative; -1 if it is anything else. */
static int sizes_of(const cria_pickle_value *tuple, int64_t *out) {
    if (tuple->kind != CRIA_PICKLE_TUPLE || tuple->as.items.count > CRIA_PICKLE_MAX_DIMS) return -1;
    for (size_t i = 0; i < tuple->as.items.count; i++) {
        const cria_pickle_value *item = tuple->as.items.items[i];
        if (item->kind != CRIA_PICKLE_INT || item->as.integer < 0) return -1;
        out[i] = item->as.integer;
    }
    return (int)tuple->as.items.count;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]) */
static cria_status push_tensor(machine *m, const cria_pickle_items *args) {
    cria_pickle_tensor *tensor = cria_arena_alloc(m->arena, sizeof *tensor);
    if (!tensor) return no_memory(m);
    if (args->count < 4 || args->items[0]->kind != CRIA_PICKLE_STORAGE || args->items[1]->kind != CRIA_PICKLE_INT ||
        args->items[1]->as.integer < 0) {
        return bad(m, "a tensor that is not made of a storage and an offset");
    }
    tensor->storage = &args->items[0]->as.storage;
    tensor->offset = args->items[1]->as.integer;
    tensor->dims = sizes_of(args->items[2], tensor->shape);
    if (tensor->dims < 0 || sizes_of(args->items[3], tensor->strides) != tensor->dims) {
        return bad(m, "a tensor whose size and stride are not lists of the same few numbers");
    }
    return push(m, (cria_pickle_value){.kind = CRIA_PICKLE_TENSOR, .as.tensor = tensor});
}

static cria_status reduce(machine *m) {
    cria_pickle_value *args = pop(m), *callable = pop(m);
    if (!args || !callable || args->kind != CRIA_PICKLE_TUPLE || callable->kind != CRIA_PICKLE_GLOBAL) {
        return bad(m, "REDUCE without a function and its arguments");
    }
    const cria_pickle_items *list = &args->as.items;
    switch (GLOBALS[callable->as.global].role) {
    case MAKES_DICT:
        return list->count == 0 ? push_kind(m, CRIA_PICKLE_DICT) : bad(m, "an OrderedDict made with arguments");
    case MAKES_TENSOR:
        return push_tensor(m, list);
    case MAKES_PARAMETER:
        if (list->count < 1 || list->items[0]->kind != CRIA_PICKLE_TENSOR)
            return bad(m, "a parameter without a tensor");
        return append(m, &m->stack, list->items[0]);
    case MAKES_STORAGE:
        break;
    }
    return bad(m, "a storage that is called");
}

/* --- containers ------------------------------------------------------------------------------------------------ */

static cria_status add_items(machine *m, cria_pickle_value *target, cria_pickle_kind kind, cria_pickle_value **items,
                             size_t count) {
    if (!target || target->kind != kind || (kind == CRIA_PICKLE_DICT && count % 2)) {
        return bad(m, kind == CRIA_PICKLE_DICT ? "items for what is no dict" : "items for what is no list");
    }
    for (size_t i = 0; i < count; i++) CRIA_TRY(append(m, &target->as.items, items[i]));
    return CRIA_OK;
}

static cria_status add_marked(machine *m, cria_pickle_kind kind) {
    cria_pickle_value **items;
    size_t count;
    if (!pop_to_mark(m, &items, &count)) return bad(m, "no mark on the stack");
    return add_items(m, top(m), kind, items, count);
}

static cria_status add_one(machine *m, cria_pickle_kind kind) {
    cria_pickle_value *items[2] = {NULL, NULL};
    size_t count = kind == CRIA_PICKLE_DICT ? 2 : 1;
    for (size_t i = count; i-- > 0;) {
        items[i] = pop(m);
        if (!items[i]) return bad(m, "the stack is empty");
    }
    return add_items(m, top(m), kind, items, count);
}

static cria_status tuple_of_marked(machine *m) {
    cria_pickle_value **items;
    size_t count;
    if (!pop_to_mark(m, &items, &count)) return bad(m, "no mark on the stack");
    return push_tuple(m, items, count);
}

static cria_status tuple_of_top(machine *m, size_t count) {
    cria_pickle_value *items[3];
    for (size_t i = count; i-- > 0;) {
        items[i] = pop(m);
        if (!items[i]) return bad(m, "the stack is empty");
    }
    return push_tuple(m, items, count);
}

/* An OrderedDict's attributes (a state dict's _metadata) and a tensor's say nothing about its numbers. */
static cria_status build(machine *m) {
    cria_pickle_value *state = pop(m), *target = top(m);
    if (state && target && (target->kind == CRIA_PICKLE_DICT || target->kind == CRIA_PICKLE_TENSOR)) return CRIA_OK;
    return bad(m, "BUILD of what is neither dict nor tensor");
}

/* --- the memo -------------------------------------------------------------------------------------------------- */

static cria_status memo_put(machine *m, uint64_t index) {
    cria_pickle_value *value = top(m);
    if (!value || value->kind == CRIA_PICKLE_MARK) return bad(m, "nothing to remember");
    /* Every entry costs a byte of pickle, so that an honest index is below its size. */
    if (index >= m->cursor.size) return bad(m, "a memo index out of range");
    while (m->memo.count <= index) CRIA_TRY(append(m, &m->memo, NULL));
    m->memo.items[index] = value;
    return CRIA_OK;
}

static cria_status memo_get(machine *m, uint64_t index) {
    if (index >= m->memo.count || !m->memo.items[index]) return bad(m, "a memo entry that was never put");
    return append(m, &m->stack, m->memo.items[index]);
}

/* --- opcodes --------------------------------------------------------------------------------------------------- */

static cria_status push_text(machine *m, int length_bytes) {
    uint64_t length = cria_cursor_uint(&m->cursor, length_bytes);
    const uint8_t *bytes = cria_cursor_take(&m->cursor, length);
    if (!bytes) return bad(m, "ends inside a string");
    cria_pickle_text text = {(const char *)bytes, (size_t)length};
    return push(m, (cria_pickle_value){.kind = CRIA_PICKLE_TEXT, .as.text = text});
}

/* LONG1: a little-endian two's complement number of up to 255 bytes, of which none over 8 is of use. */
static cria_status push_long(machine *m) {
    uint64_t length = cria_cursor_uint(&m->cursor, 1);
    if (length > 8) return bad(m, "an integer of more than 64 bits");
    uint64_t value = cria_cursor_uint(&m->cursor, (int)length);
    if (length > 0 && length < 8 && value >> (8 * length - 1)) value |= ~0ull << (8 * length);
    return push_int(m, (int64_t)value);
}

static cria_status push_float(machine *m) {
    const uint8_t *bytes = cria_cursor_take(&m->cursor, 8);
    uint64_t bits = 0;
    double value;
    for (int i = 0; bytes && i < 8; i++) bits = bits << 8 | bytes[i]; /* big-endian, unlike the rest */
    memcpy(&value, &bits, sizeof value);
    return push(m, (cria_pickle_value){.kind = CRIA_PICKLE_FLOAT, .as.number = value});
}

static cria_status global_of_lines(machine *m) {
    cria_pickle_text module, name;
    if (!take_line(m, &module) || !take_line(m, &name)) return bad(m, "ends inside a global's name");
    return push_global(m, module, name);
}

static cria_status global_of_stack(machine *m) {
    const cria_pickle_value *name = pop(m), *module = pop(m);
    if (!name || !module || name->kind != CRIA_PICKLE_TEXT || module->kind != CRIA_PICKLE_TEXT) {
        return bad(m, "a global without a name");
    }
    return push_global(m, module->as.text, name->as.text);
}

static cria_status check_protocol(machine *m) {
    uint64_t protocol = cria_cursor_uint(&m->cursor, 1);
    if (m->cursor.bad || (protocol >= 2 && protocol <= 5)) return CRIA_OK;
    return cria_fail(m->err, CRIA_ERR_UNSUPPORTED, "%s: pickle protocol %d is not supported (2 to 5 are)", m->name,
                     (int)protocol);
}

static cria_status discard(machine *m, bool to_mark) {
    cria_pickle_value **items;
    size_t count;
    bool done = to_mark ? pop_to_mark(m, &items, &count) : m->stack.count > 0 && m->stack.count-- > 0;
    return done ? CRIA_OK : bad(m, "the stack is empty");
}

static cria_status unknown_opcode(const machine *m, uint64_t opcode) {
    return cria_fail(m->err, CRIA_ERR_UNSUPPORTED, "%s: pickle byte %zu: opcode 0x%02x has no place in a state dict",
                     m->name, m->at, (unsigned)opcode);
}

/* Every opcode but STOP. */
static cria_status step(machine *m, uint64_t opcode) {
    cria_cursor *c = &m->cursor;
    switch (opcode) {
    case 0x80:
        return check_protocol(m); /* PROTO */
    case 0x95:
        cria_cursor_uint(c, 8);
        return CRIA_OK; /* FRAME */
    case '(':
        return push_kind(m, CRIA_PICKLE_MARK); /* MARK */
    case '0':
        return discard(m, false); /* POP */
    case '1':
        return discard(m, true); /* POP_MARK */
    case 'N':
        return push_kind(m, CRIA_PICKLE_NONE); /* NONE */
    case 0x88:
        return push_bool(m, true); /* NEWTRUE */
    case 0x89:
        return push_bool(m, false); /* NEWFALSE */
    case 'K':
        return push_int(m, (int64_t)cria_cursor_uint(c, 1)); /* BININT1 */
    case 'M':
        return push_int(m, (int64_t)cria_cursor_uint(c, 2)); /* BININT2 */
    case 'J':
        return push_int(m, (int32_t)(uint32_t)cria_cursor_uint(c, 4)); /* BININT */
    case 0x8a:
        return push_long(m); /* LONG1 */
    case 'G':
        return push_float(m); /* BINFLOAT */
    case 0x8c:
        return push_text(m, 1); /* SHORT_BINUNICODE */
    case 'X':
        return push_text(m, 4); /* BINUNICODE */
    case 0x8d:
        return push_text(m, 8); /* BINUNICODE8 */
    case ')':
        return push_tuple(m, NULL, 0); /* EMPTY_TUPLE */
    case 0x85:
        return tuple_of_top(m, 1); /* TUPLE1 */
    case 0x86:
        return tuple_of_top(m, 2); /* TUPLE2 */
    case 0x87:
        return tuple_of_top(m, 3); /* TUPLE3 */
    case 't':
        return tuple_of_marked(m); /* TUPLE */
    case ']':
        return push_kind(m, CRIA_PICKLE_LIST); /* EMPTY_LIST */
    case 'a':
        return add_one(m, CRIA_PICKLE_LIST); /* APPEND */
    case 'e':
        return add_marked(m, CRIA_PICKLE_LIST); /* APPENDS */
    case '}':
        return push_kind(m, CRIA_PICKLE_DICT); /* EMPTY_DICT */
    case 's':
        return add_one(m, CRIA_PICKLE_DICT); /* SETITEM */
    case 'u':
        return add_marked(m, CRIA_PICKLE_DICT); /* SETITEMS */
    case 'c':
        return global_of_lines(m); /* GLOBAL */
    case 0x93:
        return global_of_stack(m); /* STACK_GLOBAL */
    case 'R':
        return reduce(m); /* REDUCE */
    case 'b':
        return build(m); /* BUILD */
    case 'Q':
        return push_storage(m); /* BINPERSID */
    case 'q':
        return memo_put(m, cria_cursor_uint(c, 1)); /* BINPUT */
    case 'r':
        return memo_put(m, cria_cursor_uint(c, 4)); /* LONG_BINPUT */
    case 0x94:
        return memo_put(m, m->memo.count); /* MEMOIZE */
    case 'h':
        return memo_get(m, cria_cursor_uint(c, 1)); /* BINGET */
    case 'j':
        return memo_get(m, cria_cursor_uint(c, 4)); /* LONG_BINGET */
    default:
        return unknown_opcode(m, opcode);
    }
}

cria_status cria_pickle_load(const char *name, const uint8_t *bytes, size_t size, cria_arena *arena,
                             const cria_pickle_value **out, cria_error *err) {
    machine m = {.name = name, .cursor = {bytes, size, 0, false}, .arena = arena, .err = err};
    *out = NULL;
    for (;;) {
        m.at = m.cursor.at;
        uint64_t opcode = cria_cursor_uint(&m.cursor, 1);
        if (m.cursor.bad) return bad(&m, "ends before its STOP (truncated?)");
        if (opcode == '.') break;
        CRIA_TRY(step(&m, opcode));
        if (m.cursor.bad) return bad(&m, "ends inside an opcode (truncated?)");
    }
    const cria_pickle_value *value = pop(&m);
    if (!value) return bad(&m, "STOP with nothing on the stack");
    *out = value;
    return CRIA_OK;
}
