# Mamba YOLO-T as the paper describes it: Blocks [3, 6, 6, 3], no LSBlock.
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True, pad_value=114),
    backbone=dict(type='ODMamba', arch='t'),
    neck=dict(type='ODSSPAFPN', in_channels=[64, 128, 256]),
    bbox_head=dict(type='YOLOv8Head', num_classes=80, in_channels=[64, 128, 256]),
    train_cfg=dict(assigner=dict(type='BatchTaskAlignedAssigner', topk=10, alpha=0.5, beta=6.0)),
    test_cfg=dict(
        nms_pre=30000, score_thr=0.001, nms=dict(type='nms', iou_threshold=0.7), max_per_img=300, min_bbox_size=0))
