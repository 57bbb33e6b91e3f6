/*
 * An extension for OpenVINO: Core.add_extension(path). Reads the operators from ONNX files and from OpenVINO's own, and
 * runs them on the threads of the node's stream, which OpenVINO takes from oneTBB.
 */
#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <vector>

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>
#include <openvino/op/op.hpp>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

extern "C" {
#include "scan_op.h"
}

namespace {

int spread(void *, int64_t count, void (*run)(void *work, int64_t i), void *work) {
    tbb::parallel_for(int64_t{0}, count, [=](int64_t i) { run(work, i); }, tbb::simple_partitioner());
    return 0;
}

std::shared_ptr<ScanOrders> new_orders() {
    std::shared_ptr<ScanOrders> orders(scan_orders_new(), scan_orders_free);
    OPENVINO_ASSERT(orders, "mmmamba: memory ran out.");
    return orders;
}

template <int which>
class Scan : public ov::op::Op {
public:
    static const ScanOp &op() { return scan_ops[which]; }

    static const ov::DiscreteTypeInfo &get_type_info_static() {
        static const ov::DiscreteTypeInfo info(op().name, SCAN_OP_DOMAIN);
        return info;
    }
    const ov::DiscreteTypeInfo &get_type_info() const override { return get_type_info_static(); }

    Scan() = default;
    Scan(const ov::OutputVector &inputs, int64_t version) : Op(inputs), version_(version) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        char message[SCAN_OP_MESSAGE];
        if (!scan_op_has_version(&op(), version_, message)) OPENVINO_THROW(message);
        if (get_input_size() != op().inputs) OPENVINO_THROW(op().name, ": takes ", op().inputs, " inputs.");
        set_output_type(0, ov::element::f32, get_input_partial_shape(0));
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector &inputs) const override {
        return std::make_shared<Scan>(inputs, version_);
    }

    bool visit_attributes(ov::AttributeVisitor &visitor) override {
        visitor.on_attribute(SCAN_OP_VERSION_ATTRIBUTE, version_);
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector &outputs, const ov::TensorVector &inputs) const override {
        ScanTensor tensors[SCAN_OP_MOST_INPUTS] = {};
        std::vector<int64_t> tables[SCAN_OP_MOST_INPUTS];
        char message[SCAN_OP_MESSAGE];
        const int threads = tbb::this_task_arena::max_concurrency();
        const ScanPool pool = {spread, nullptr};
        int failed = 0;
        outputs[0].set_shape(inputs[0].get_shape());
        float *y = outputs[0].data<float>();
        for (size_t i = 0; i < op().inputs && !failed; i++) failed = !read(inputs[i], i, tensors[i], tables[i], message);
        if (!failed) failed = scan_op_run(&op(), tensors, y, orders_.get(), &pool, threads, message);
        if (failed && threads > 1) OPENVINO_THROW(message);
        if (failed) {
            /* On one thread, OpenVINO 2026.4 loses whatever is thrown, even by its own operators, and memory with it. */
            std::fprintf(stderr, "%s\n", message);
            std::fill_n(y, outputs[0].get_size(), std::numeric_limits<float>::quiet_NaN());
        }
        return true;
    }

private:
    /* Returns false with a message. The CPU plugin may have made int32 of int64, which `table` then holds. */
    static bool read(const ov::Tensor &input, size_t index, ScanTensor &tensor, std::vector<int64_t> &table,
                     char *message) {
        const auto type = input.get_element_type();
        const auto &shape = input.get_shape();
        const bool is_table = index >= op().first_table, narrow = is_table && type == ov::element::i32;
        if ((type != (is_table ? ov::element::i64 : ov::element::f32) && !narrow) || !input.is_continuous()) {
            std::snprintf(message, SCAN_OP_MESSAGE, "%s: input %zu is not dense or has elements of the type %s.",
                          op().name, index, type.to_string().c_str());
            return false;
        }
        tensor.data = input.data();
        tensor.rank = shape.size();
        for (size_t i = 0; i < shape.size() && shape.size() <= SCAN_OP_MOST_SIZES; i++)
            tensor.sizes[i] = static_cast<int64_t>(shape[i]);
        if (narrow) {
            const auto *from = input.data<int32_t>();
            table.assign(from, from + input.get_size());
            tensor.data = table.data();
        }
        return true;
    }

    int64_t version_ = SCAN_OP_VERSION;
    std::shared_ptr<ScanOrders> orders_ = new_orders();
};

template <int which>
void add(std::vector<ov::Extension::Ptr> &extensions) {
    using Op = Scan<which>;
    extensions.push_back(std::make_shared<ov::OpExtension<Op>>());
    extensions.push_back(std::make_shared<ov::frontend::onnx::ConversionExtension>(
        Op::op().name, SCAN_OP_DOMAIN, [](const ov::frontend::NodeContext &node) -> ov::OutputVector {
            ov::OutputVector inputs;
            for (size_t i = 0; i < node.get_input_size(); i++) inputs.push_back(node.get_input(static_cast<int>(i)));
            const auto version = node.get_attribute<int64_t>(SCAN_OP_VERSION_ATTRIBUTE, 1);
            return std::make_shared<Op>(inputs, version)->outputs();
        }));
}

std::vector<ov::Extension::Ptr> extensions() {
    std::vector<ov::Extension::Ptr> found;
    add<SS2D_SCAN>(found);
    add<SELECTIVE_SCAN>(found);
    return found;
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(extensions());
