"""The reference rasteriser's gradients against finite differences, in float64."""

import torch

from ex4d.render.plain import face_weights, rasterize

K = torch.tensor([[9.0, 0, 4], [0, 9.0, 3], [0, 0, 1]], dtype=torch.float64)
FACES = torch.tensor([[0, 1, 2], [1, 3, 2]])
VISIBLE = torch.ones(2, dtype=torch.bool)


def quad():
    """A slanted quad whose edges stay clear of pixel centres."""
    return torch.tensor(
        [[-0.83, -0.57, 3.1], [0.91, -0.61, 2.3], [-0.87, 0.63, 3.4], [0.93, 0.59, 2.6]], dtype=torch.float64
    )


def test_colour_and_depth_with_respect_to_vertices_and_colours():
    torch.manual_seed(0)
    color = torch.rand(4, 4, dtype=torch.float64)

    def render(vertices, color):
        out = rasterize(vertices, FACES, color, VISIBLE, torch.eye(4, dtype=torch.float64), K, (6, 8))
        hit = out.face_id >= 0
        return out.color[hit], out.depth[hit]

    inputs = (quad().requires_grad_(), color.requires_grad_())
    assert render(*inputs)[1].numel() > 10
    assert torch.autograd.gradcheck(render, inputs, eps=1e-7, atol=1e-5)


def test_depth_with_respect_to_the_camera():
    cam_from_world = torch.eye(4, dtype=torch.float64).requires_grad_()

    def render(cam_from_world):
        out = rasterize(quad(), FACES, torch.ones(4, 3, dtype=torch.float64), VISIBLE, cam_from_world, K, (6, 8))
        return out.depth[out.face_id >= 0]

    assert torch.autograd.gradcheck(render, cam_from_world, eps=1e-7, atol=1e-5)


def test_weights_of_a_face_that_reaches_behind_the_camera():
    corners = torch.tensor([[[1.0, 2.0, 3.0], [-2.0, 1.0, 2.0], [0.5, -4.0, -1.0]]], dtype=torch.float64)
    truth = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    point = (truth[..., None] * corners).sum(1)
    weights, inverse_z = face_weights(corners, point / point[:, 2:])
    torch.testing.assert_close(weights, truth)
    torch.testing.assert_close(1 / inverse_z, point[:, 2])
