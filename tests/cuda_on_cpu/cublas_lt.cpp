// The functions of cublasLt that kernels/cuda/cublas_lt.py calls, on the host, behind cublas.cpp. It offers several
// algorithms, which sum in different orders: some cannot be used, some fail, and each takes a time of its own by the
// device's clock.

#include <cmath>
#include <map>

namespace {

constexpr int NO_EPILOGUE = 1, GELU_AUX = 160, DGELU = 192;
constexpr int OPERATION = 0x4f50, LAYOUT = 0x4c41, PREFERENCE = 0x5052;
constexpr size_t MiB = 1 << 20;

// Attributes as they are set: number -> value. Each kind of object knows the size of its own.
struct Object {
    int kind;
    std::map<int, int64_t> attributes;
};

const std::map<int, std::map<int, size_t>> SIZES{
    {OPERATION, {{3, 4}, {4, 4}, {7, 4}, {11, 8}, {12, 8}}},
    {LAYOUT, {{5, 4}, {6, 8}}},
    {PREFERENCE, {{1, 8}, {3, 4}, {5, 4}, {6, 4}, {7, 4}, {8, 4}}},
};

// Of a layout, beside the attributes of cublasLt.h: how it was created.
constexpr int TYPE = 100, ROWS = 101, COLUMNS = 102, LEADING = 103;
// Of an operation.
constexpr int COMPUTE = 100;

std::atomic<int> objects{0}, searches{0};

int create(void** made, int kind, std::map<int, int64_t> attributes) {
    *made = new Object{kind, std::move(attributes)};
    ++objects;
    return SUCCESS;
}

int destroy(void* made, int kind) {
    Object* object = static_cast<Object*>(made);
    if (object->kind != kind) return INVALID_VALUE;
    object->kind = 0;
    delete object;
    --objects;
    return SUCCESS;
}

int set(void* made, int kind, int attribute, const void* value, size_t size) {
    Object* object = static_cast<Object*>(made);
    const auto& sizes = SIZES.at(kind);
    if (object->kind != kind || !sizes.count(attribute) || sizes.at(attribute) != size) return INVALID_VALUE;
    int64_t number = 0;
    std::memcpy(&number, value, size);
    object->attributes[attribute] = number;
    return SUCCESS;
}

struct Matrices {
    int64_t type, rows, columns, leading, count, stride;

    explicit Matrices(void* layout) {
        auto& found = static_cast<Object*>(layout)->attributes;
        type = found[TYPE], rows = found[ROWS], columns = found[COLUMNS], leading = found[LEADING];
        count = found[5], stride = found[6];
    }
    bool operator==(const Matrices& other) const {
        return type == other.type && rows == other.rows && columns == other.columns && leading == other.leading &&
               count == other.count && stride == other.stride;
    }
};

// A problem, or why there is none.
struct Problem {
    int status = SUCCESS, transa, transb, compute, epilogue;
    void* aux;
    int64_t aux_leading;
    Matrices A, B, C;

    Problem(void* operation, void* Adesc, void* Bdesc, void* Cdesc, void* Ddesc) : A(Adesc), B(Bdesc), C(Cdesc) {
        auto& found = static_cast<Object*>(operation)->attributes;
        transa = found[3], transb = found[4], compute = found[COMPUTE];
        epilogue = found[7], aux = reinterpret_cast<void*>(found[11]), aux_leading = found[12];
        const auto inner = transa ? A.rows : A.columns;
        const bool fits = (transa ? A.columns : A.rows) == C.rows && (transb ? B.columns : B.rows) == inner &&
                          (transb ? B.rows : B.columns) == C.columns && C == Matrices(Ddesc);
        if (!fits || A.count != C.count || B.count != C.count || C.count < 1) status = INVALID_VALUE;
        for (const Matrices& each : {A, B, C})
            if (each.leading < each.rows || each.leading < 1) status = INVALID_VALUE;
        if (C.count > 1 && C.stride == 0) status = INVALID_VALUE;
        if (epilogue != NO_EPILOGUE) {
            if (epilogue != GELU_AUX && epilogue != DGELU) status = NOT_SUPPORTED;
            if (!aux || aux_leading < C.rows || C.count != 1) status = INVALID_VALUE;
        }
        if (inner == 0 || C.rows == 0 || C.columns == 0) status = NOT_SUPPORTED;
    }
    uint64_t digest(int64_t alignment) const {
        uint64_t mixed = 1469598103934665603u;
        for (int64_t x : {int64_t(transa), int64_t(transb), int64_t(compute), int64_t(epilogue), alignment})
            mixed = (mixed ^ uint64_t(x)) * 1099511628211u;
        for (const Matrices& each : {A, B, C})
            for (int64_t x : {each.type, each.rows, each.columns, each.leading, each.count, each.stride})
                mixed = (mixed ^ uint64_t(x)) * 1099511628211u;
        return mixed;
    }
};

struct Algorithm {
    uint64_t number, alignment, digest, unused[5];
};

struct Result {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
static_assert(sizeof(Result) == 96);

// What an algorithm needs, whether it works, and into how many parts it splits a sum, by which reduction scheme.
struct Kind {
    size_t workspace;
    int64_t alignment;
    int scheme, state, outcome, parts;
};
const std::vector<Kind> KINDS{
    {0, 4, 0, NOT_SUPPORTED, SUCCESS, 1},        // cannot be used
    {0, 2, 0, SUCCESS, SUCCESS, 1},              // for any addresses
    {0, 2, 0, SUCCESS, NOT_SUPPORTED, 1},        // fails when it is run
    {16 * MiB, 16, 2, SUCCESS, SUCCESS, 2},      // for aligned addresses
    {MiB, 4, 2, SUCCESS, SUCCESS, 3},
    {64 * MiB, 2, 0, SUCCESS, SUCCESS, 4},       // more workspace than there is
    {0, 2, 1, SUCCESS, SUCCESS, 5},              // adds parts of a sum in the result's type
};
std::atomic<int> runs[7];
int duration[7] = {1, 5, 1, 2, 3, 1, 1};

// gelu in its tanh form: of the product, which is kept, or its slope where it was kept, times the product.
void finish(const Problem& problem, void* D) {
    const Matrices& c = problem.C;
    for (int64_t j = 0; j < c.columns; ++j)
        for (int64_t i = 0; i < c.rows; ++i) {
            const int64_t place = j * c.leading + i, kept = j * problem.aux_leading + i;
            const float product = read(D, c.type, place);
            if (problem.epilogue == GELU_AUX) write(problem.aux, c.type, kept, product);
            const double x = read(problem.aux, c.type, kept), scale = 0.7978845608028654, cubic = 0.044715;
            const double t = std::tanh(scale * (x + cubic * x * x * x));
            const double slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * scale * (1 + 3 * cubic * x * x);
            write(D, c.type, place, problem.epilogue == GELU_AUX ? 0.5 * x * (1 + t) : product * slope);
        }
}

}  // namespace

extern "C" long long read_clock() { return ticks; }
extern "C" int count_objects() { return objects; }
extern "C" int count_searches() { return searches; }
extern "C" int count_runs(int algorithm) { return runs[algorithm]; }
extern "C" void set_duration(int algorithm, int count) { duration[algorithm] = count; }

extern "C" size_t cublasLtGetVersion() { return 130100; }

extern "C" int cublasLtMatmulDescCreate(void** made, int compute, int scale) {
    if (scale != R_32F || (compute != 68 && compute != 77)) return INVALID_VALUE;
    return create(made, OPERATION, {{COMPUTE, compute}, {3, 0}, {4, 0}, {7, 1}, {11, 0}, {12, 0}});
}
extern "C" int cublasLtMatmulDescDestroy(void* made) { return destroy(made, OPERATION); }
extern "C" int cublasLtMatmulDescSetAttribute(void* made, int attribute, const void* value, size_t size) {
    return set(made, OPERATION, attribute, value, size);
}

extern "C" int cublasLtMatrixLayoutCreate(void** made, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    if (type != R_32F && type != R_16BF) return INVALID_VALUE;
    return create(made, LAYOUT,
                  {{TYPE, type}, {ROWS, rows}, {COLUMNS, columns}, {LEADING, leading}, {5, 1}, {6, 0}});
}
extern "C" int cublasLtMatrixLayoutDestroy(void* made) { return destroy(made, LAYOUT); }
extern "C" int cublasLtMatrixLayoutSetAttribute(void* made, int attribute, const void* value, size_t size) {
    return set(made, LAYOUT, attribute, value, size);
}

extern "C" int cublasLtMatmulPreferenceCreate(void** made) {
    return create(made, PREFERENCE, {{1, 0}, {3, 7}, {5, 256}, {6, 256}, {7, 256}, {8, 256}});
}
extern "C" int cublasLtMatmulPreferenceDestroy(void* made) { return destroy(made, PREFERENCE); }
extern "C" int cublasLtMatmulPreferenceSetAttribute(void* made, int attribute, const void* value, size_t size) {
    return set(made, PREFERENCE, attribute, value, size);
}

extern "C" int cublasLtMatmulAlgoGetHeuristic(void* handle, void* operation, void* Adesc, void* Bdesc, void* Cdesc,
                                              void* Ddesc, void* preference, int requested, Result* results,
                                              int* returned) {
    if (static_cast<Handle*>(handle)->thread != std::this_thread::get_id()) return EXECUTION_FAILED;
    ++searches;
    const Problem problem(operation, Adesc, Bdesc, Cdesc, Ddesc);
    if (problem.status != SUCCESS || requested < 1) return problem.status ? problem.status : INVALID_VALUE;
    if (problem.compute == 77 && problem.A.type != R_32F) return NOT_SUPPORTED;
    if (problem.A.type != problem.B.type || (problem.C.type != problem.A.type && problem.C.type != R_32F))
        return NOT_SUPPORTED;
    auto& limits = static_cast<Object*>(preference)->attributes;
    int64_t alignment = 256;
    for (int place : {5, 6, 7, 8}) alignment = std::min(alignment, limits[place]);
    *returned = 0;
    for (size_t number = 0; number < KINDS.size() && *returned < requested; ++number) {
        const Kind& kind = KINDS[number];
        if (int64_t(kind.workspace) > limits[1] || kind.alignment > alignment || (kind.scheme & ~limits[3])) continue;
        results[(*returned)++] = {{number, uint64_t(alignment), problem.digest(alignment), {}},
                                  kind.workspace, kind.state, 1.0f, {}};
    }
    return SUCCESS;
}

extern "C" int cublasLtMatmul(void* handle, void* operation, const void* alpha, const void* A, void* Adesc,
                              const void* B, void* Bdesc, const void* beta, const void* C, void* Cdesc, void* D,
                              void* Ddesc, const Algorithm* algorithm, void* workspace, size_t size,
                              void* stream) {
    if (static_cast<Handle*>(handle)->thread != std::this_thread::get_id()) return EXECUTION_FAILED;
    const Problem problem(operation, Adesc, Bdesc, Cdesc, Ddesc);
    if (problem.status != SUCCESS) return problem.status;
    // A library would overwrite memory or crash where this one refuses.
    if (algorithm->number >= KINDS.size() || algorithm->digest != problem.digest(algorithm->alignment))
        return INVALID_VALUE;
    const Kind& kind = KINDS[algorithm->number];
    if (kind.state != SUCCESS || kind.outcome != SUCCESS) return NOT_SUPPORTED;
    if (size < kind.workspace || (size && (!workspace || reinterpret_cast<uintptr_t>(workspace) % 16)))
        return INVALID_VALUE;
    for (const void* x : {A, B, C, const_cast<const void*>(D)})
        if (reinterpret_cast<uintptr_t>(x) % algorithm->alignment) return INVALID_VALUE;
    if (C != D) return NOT_SUPPORTED;
    const float scale = *static_cast<const float*>(alpha), kept = *static_cast<const float*>(beta);
    const uint64_t number = algorithm->number;
    return submit(stream, [=] {
        const Matrices &a = problem.A, &b = problem.B, &c = problem.C;
        multiply(problem.transa, problem.transb, c.rows, c.columns, problem.transa ? a.rows : a.columns, scale, A,
                 a.type, a.leading, a.stride, B, b.type, b.leading, b.stride, kept, D, c.type, c.leading, c.stride,
                 c.count, problem.compute == 77, KINDS[number].parts);
        if (problem.epilogue != NO_EPILOGUE) finish(problem, D);
        ++runs[number];
        ticks += duration[number];
        return SUCCESS;
    });
}
