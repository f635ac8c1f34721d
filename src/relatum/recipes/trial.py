"""What a recipe would make of images that are only listed: whatever it refuses, it refuses before they are decoded.

Decoding a set takes minutes; batches, networks, teachers and losses take a second to make, and to throw away.
"""

from collections.abc import Callable

from relatum.data.images import ResidentImages
from relatum.data.listing import Listing
from relatum.data.sources import Source
from relatum.methods import Method
from relatum.networks.backbones import Backbone
from relatum.recipes.building import NOTHING, Given, Prepared, batch_size_for, batches_of, build, cut
from relatum.recipes.recipe import Recipe


def of(
    recipe: Recipe, refuse: Callable[[Method], object] = lambda method: None, given: Given = NOTHING
) -> Callable[[Listing], None]:
    """What `building.prepare` is to check of listed images before a training.

    Args:
        recipe: what is to be trained.
        refuse: raises for a method that cannot be trained as the recipe says.
        given: objects in the place of what the recipe names.
    """

    def check(listing: Listing) -> None:
        train, held_out = cut(recipe, listing)
        images = batch_size_for(recipe, train.labels)
        batches_of(recipe, train.labels, images)(0)
        if all(isinstance(images, ResidentImages) for images in listing.parts):
            return  # nothing is to be decoded: the run itself comes to this within the same second
        unknown = (0.0,) * 3  # the mean and the deviation of decoded images, which have three channels
        source = Source(recipe.data.source, train, None, listing.classes, unknown, unknown, None)
        method = build(recipe, Prepared(source, train, held_out, images, backbone=given.backbone), decoded=False)
        size = recipe.data.view.size
        for network in method.modules():
            if isinstance(network, Backbone):
                network.refuse_images_of(3, size, size)
        refuse(method)

    return check
