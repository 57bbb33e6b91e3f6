/*
 * What onnxruntime_op.c uses of ONNX Runtime's C API: names and places of functions, as of version 17 of the API (ONNX
 * Runtime 1.17). Later versions only append to both structures.
 */
#ifndef MMMAMBA_ONNXRUNTIME_API_H
#define MMMAMBA_ONNXRUNTIME_API_H

#include <stddef.h>
#include <stdint.h>

#define ORT_API_USED 17

enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };
enum { ORT_FLOAT = 1, ORT_INT64 = 7 }; /* types of elements */
enum { ORT_REQUIRED = 0 };             /* an input or output that is neither optional nor variadic */
enum { ORT_MEMORY_DEFAULT = 0 };

/* An error, or NULL. Whoever gets one releases it or returns it. */
typedef struct OrtStatus OrtStatus;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtShapeInferContext OrtShapeInferContext;
typedef struct OrtTensorInfo OrtTensorInfo;
typedef struct OrtValue OrtValue;
typedef struct OrtCustomOp OrtCustomOp;
typedef void (*OrtUnused)(void);

typedef struct {
    OrtStatus *(*CreateStatus)(int code, const char *message);
    OrtUnused from_1[25];
    OrtStatus *(*CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **domain);
    OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
    OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
    OrtUnused from_29[22];
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **data);
    OrtUnused from_52[9];
    OrtStatus *(*GetDimensionsCount)(const OrtTensorInfo *info, size_t *count);
    OrtStatus *(*GetDimensions)(const OrtTensorInfo *info, int64_t *sizes, size_t count);
    OrtUnused from_63[2];
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorInfo **info);
    OrtUnused from_66[20];
    OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name, int64_t *value);
    OrtUnused from_87[3];
    OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index, const OrtValue **value);
    OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index, const int64_t *sizes, size_t count,
                                          OrtValue **value);
    OrtUnused from_92[1];
    void (*ReleaseStatus)(OrtStatus *status);
    OrtUnused from_94[5];
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorInfo *info);
    OrtUnused from_100[1];
    void (*ReleaseCustomOpDomain)(OrtCustomOpDomain *domain);
    OrtUnused from_102[135];
    OrtStatus *(*HasSessionConfigEntry)(const OrtSessionOptions *options, const char *key, int *has);
    OrtStatus *(*GetSessionConfigEntry)(const OrtSessionOptions *options, const char *key, char *value, size_t *size);
    OrtUnused from_239[29];
    OrtStatus *(*ShapeInferContext_GetInputTypeShape)(const OrtShapeInferContext *context, size_t index,
                                                      OrtTensorInfo **info); /* which the context keeps */
    OrtUnused from_269[1];
    OrtStatus *(*ShapeInferContext_SetOutputTypeShape)(const OrtShapeInferContext *context, size_t index,
                                                       const OrtTensorInfo *info);
    OrtUnused from_271[3];
    OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context, void (*call)(void *data, size_t index),
                                            size_t total, size_t batches, void *data);
} OrtApi;

#define ORT_SLOT(function, slot) \
    _Static_assert(offsetof(OrtApi, function) == (slot) * sizeof(OrtUnused), "place of " #function)
ORT_SLOT(CreateCustomOpDomain, 26);
ORT_SLOT(GetTensorMutableData, 51);
ORT_SLOT(GetDimensionsCount, 61);
ORT_SLOT(GetTensorTypeAndShape, 65);
ORT_SLOT(KernelInfoGetAttribute_int64, 86);
ORT_SLOT(KernelContext_GetInput, 90);
ORT_SLOT(ReleaseStatus, 93);
ORT_SLOT(ReleaseTensorTypeAndShapeInfo, 99);
ORT_SLOT(ReleaseCustomOpDomain, 101);
ORT_SLOT(HasSessionConfigEntry, 237);
ORT_SLOT(ShapeInferContext_GetInputTypeShape, 268);
ORT_SLOT(ShapeInferContext_SetOutputTypeShape, 270);
ORT_SLOT(KernelContext_ParallelFor, 274);

typedef struct {
    const OrtApi *(*GetApi)(uint32_t version); /* NULL if the runtime is older */
    const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtCustomOp {
    uint32_t version; /* ORT_API_USED */
    OrtUnused create_kernel;
    const char *(*GetName)(const OrtCustomOp *op);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *op);
    int (*GetInputType)(const OrtCustomOp *op, size_t index);
    size_t (*GetInputTypeCount)(const OrtCustomOp *op);
    int (*GetOutputType)(const OrtCustomOp *op, size_t index);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *op);
    OrtUnused kernel_compute;
    void (*KernelDestroy)(void *kernel);
    int (*GetInputCharacteristic)(const OrtCustomOp *op, size_t index);
    int (*GetOutputCharacteristic)(const OrtCustomOp *op, size_t index);
    int (*GetInputMemoryType)(const OrtCustomOp *op, size_t index);
    OrtUnused of_variadic_ones[4];
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel);
    OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *context);
    OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *op, OrtShapeInferContext *context);
    int (*GetStartVersion)(const OrtCustomOp *op);
    int (*GetEndVersion)(const OrtCustomOp *op);
};

#endif
