/*
 * A library of custom operators for ONNX Runtime: SessionOptions.register_custom_ops_library(path). Needs ONNX Runtime
 * 1.17 or later. Every status that is not NULL goes back to ONNX Runtime, which releases it.
 */
#include "onnxruntime_api.h"
#include "scan_op.h"

#include <stdio.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))
/* What a session's options may say, before they register this library: how many threads its operators run on. */
#define THREADS_KEY "mmmamba.threads"

#define RETURN_IF(call)              \
    do {                             \
        OrtStatus *status_ = (call); \
        if (status_) return status_; \
    } while (0)

typedef struct {
    OrtCustomOp base; /* the first member: ONNX Runtime passes it on */
    const OrtApi *api;
    const ScanOp *op;
    int64_t threads; /* 0 if the options do not say */
} Operator;

typedef struct {
    const Operator *of;
    ScanOrders *orders;
} Kernel;

static const Operator *operator_of(const OrtCustomOp *op) { return (const Operator *)op; }

static const char *get_name(const OrtCustomOp *op) { return operator_of(op)->op->name; }

static const char *get_provider(const OrtCustomOp *op) {
    (void)op;
    return "CPUExecutionProvider";
}

static int get_input_type(const OrtCustomOp *op, size_t index) {
    return index < operator_of(op)->op->first_table ? ORT_FLOAT : ORT_INT64;
}

static size_t get_input_count(const OrtCustomOp *op) { return operator_of(op)->op->inputs; }

static int get_output_type(const OrtCustomOp *op, size_t index) {
    (void)op, (void)index;
    return ORT_FLOAT;
}

static size_t get_output_count(const OrtCustomOp *op) {
    (void)op;
    return 1;
}

static int get_characteristic(const OrtCustomOp *op, size_t index) {
    (void)op, (void)index;
    return ORT_REQUIRED;
}

static int get_memory_type(const OrtCustomOp *op, size_t index) {
    (void)op, (void)index;
    return ORT_MEMORY_DEFAULT;
}

/* y has the shape of x, where that is known. */
static OrtStatus *infer_shape(const OrtCustomOp *op, OrtShapeInferContext *context) {
    const OrtApi *api = operator_of(op)->api;
    OrtTensorInfo *x;
    size_t rank;
    RETURN_IF(api->ShapeInferContext_GetInputTypeShape(context, 0, &x));
    RETURN_IF(api->GetDimensionsCount(x, &rank));
    return rank ? api->ShapeInferContext_SetOutputTypeShape(context, 0, x) : NULL;
}

static void destroy(void *kernel) {
    if (kernel) scan_orders_free(((Kernel *)kernel)->orders);
    free(kernel);
}

/* ONNX Runtime ignores which version of a custom domain a file imports, so the nodes say theirs if it is not 1. */
static OrtStatus *check_version(const Operator *of, const OrtKernelInfo *info) {
    int64_t version = 1;
    char message[SCAN_OP_MESSAGE];
    OrtStatus *absent = of->api->KernelInfoGetAttribute_int64(info, SCAN_OP_VERSION_ATTRIBUTE, &version);
    if (absent) of->api->ReleaseStatus(absent);
    if (scan_op_has_version(of->op, version, message)) return NULL;
    return of->api->CreateStatus(ORT_FAIL, message);
}

static OrtStatus *create(const OrtCustomOp *base, const OrtApi *api, const OrtKernelInfo *info, void **kernel) {
    const Operator *of = operator_of(base);
    *kernel = NULL;
    RETURN_IF(check_version(of, info));
    Kernel *made = malloc(sizeof *made);
    if (made) *made = (Kernel){of, scan_orders_new()};
    if (!made || !made->orders) {
        destroy(made);
        return api->CreateStatus(ORT_FAIL, "mmmamba: memory ran out.");
    }
    *kernel = made;
    return NULL;
}

/* The pool of the session that runs a node. */
typedef struct {
    const OrtApi *api;
    const OrtKernelContext *context;
    OrtStatus *status;
} Pool;

typedef struct {
    void (*run)(void *work, int64_t i);
    void *work;
} Call;

static void call_item(void *data, size_t index) {
    const Call *call = data;
    call->run(call->work, (int64_t)index);
}

static int spread(void *data, int64_t count, void (*run)(void *work, int64_t i), void *work) {
    Pool *pool = data;
    Call call = {run, work};
    if (count == 1) run(work, 0);
    else pool->status = pool->api->KernelContext_ParallelFor(pool->context, call_item, (size_t)count, 0, &call);
    return pool->status != NULL;
}

static OrtStatus *read_shape(const OrtApi *api, const OrtTensorInfo *info, ScanTensor *tensor) {
    RETURN_IF(api->GetDimensionsCount(info, &tensor->rank));
    return tensor->rank > SCAN_OP_MOST_SIZES ? NULL : api->GetDimensions(info, tensor->sizes, tensor->rank);
}

static OrtStatus *read(const OrtApi *api, const OrtKernelContext *context, size_t index, ScanTensor *tensor) {
    const OrtValue *value;
    OrtTensorInfo *info;
    void *data;
    RETURN_IF(api->KernelContext_GetInput(context, index, &value));
    RETURN_IF(api->GetTensorTypeAndShape(value, &info));
    OrtStatus *status = read_shape(api, info, tensor);
    api->ReleaseTensorTypeAndShapeInfo(info);
    RETURN_IF(status);
    RETURN_IF(api->GetTensorMutableData((OrtValue *)value, &data));
    tensor->data = data;
    return NULL;
}

static OrtStatus *compute(void *data, OrtKernelContext *context) {
    const Kernel *kernel = data;
    const Operator *of = kernel->of;
    const OrtApi *api = of->api;
    ScanTensor inputs[SCAN_OP_MOST_INPUTS] = {0};
    OrtValue *output;
    void *y;
    char message[SCAN_OP_MESSAGE];
    for (size_t i = 0; i < of->op->inputs; i++) RETURN_IF(read(api, context, i, &inputs[i]));
    const size_t rank = inputs[0].rank > SCAN_OP_MOST_SIZES ? 0 : inputs[0].rank; /* which is checked below */
    RETURN_IF(api->KernelContext_GetOutput(context, 0, inputs[0].sizes, rank, &output));
    RETURN_IF(api->GetTensorMutableData(output, &y));
    Pool own = {api, context, NULL};
    const ScanPool pool = {spread, &own};
    if (!scan_op_run(of->op, inputs, y, kernel->orders, &pool, of->threads, message)) return NULL;
    return own.status ? own.status : api->CreateStatus(ORT_INVALID_ARGUMENT, message);
}

static const OrtCustomOp base = {
    .version = ORT_API_USED,
    .GetName = get_name,
    .GetExecutionProviderType = get_provider,
    .GetInputType = get_input_type,
    .GetInputTypeCount = get_input_count,
    .GetOutputType = get_output_type,
    .GetOutputTypeCount = get_output_count,
    .KernelDestroy = destroy,
    .GetInputCharacteristic = get_characteristic,
    .GetOutputCharacteristic = get_characteristic,
    .GetInputMemoryType = get_memory_type,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
    .InferOutputShapeFn = infer_shape,
};

static OrtStatus *read_threads(const OrtApi *api, const OrtSessionOptions *options, int64_t *threads) {
    char text[16] = "", *end = text;
    size_t size = sizeof text;
    int has = 0;
    *threads = 0;
    RETURN_IF(api->HasSessionConfigEntry(options, THREADS_KEY, &has));
    if (!has) return NULL;
    RETURN_IF(api->GetSessionConfigEntry(options, THREADS_KEY, text, &size));
    const long found = strtol(text, &end, 10);
    if (end == text || *end || found < 1 || found > 4096)
        return api->CreateStatus(ORT_INVALID_ARGUMENT, THREADS_KEY " must be a number from 1 to 4096.");
    *threads = found;
    return NULL;
}

static OrtStatus *add_operators(const OrtApi *api, OrtSessionOptions *options, OrtCustomOpDomain *domain,
                                Operator *operators, int64_t threads) {
    for (int i = 0; i < SCAN_OPS; i++) {
        operators[i] = (Operator){base, api, &scan_ops[i], threads};
        RETURN_IF(api->CustomOpDomain_Add(domain, &operators[i].base));
    }
    return api->AddCustomOpDomain(options, domain);
}

/* The operators live as long as the process: nothing says when the last session that has them ends. */
EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *runtime) {
    const OrtApi *api = runtime->GetApi(ORT_API_USED);
    OrtCustomOpDomain *domain;
    int64_t threads;
    if (!api) {
        char message[SCAN_OP_MESSAGE];
        snprintf(message, sizeof message, "mmmamba needs ONNX Runtime 1.%d or later, but this is %s.", ORT_API_USED,
                 runtime->GetVersionString());
        return runtime->GetApi(1)->CreateStatus(ORT_FAIL, message);
    }
    RETURN_IF(read_threads(api, options, &threads));
    RETURN_IF(api->CreateCustomOpDomain(SCAN_OP_DOMAIN, &domain));
    Operator *operators = malloc(SCAN_OPS * sizeof *operators);
    OrtStatus *status = operators ? add_operators(api, options, domain, operators, threads)
                                  : api->CreateStatus(ORT_FAIL, "mmmamba: memory ran out.");
    if (!status) return NULL;
    api->ReleaseCustomOpDomain(domain);
    free(operators);
    return status;
}
