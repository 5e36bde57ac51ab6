"""What taking part is worth to a site, and what it could gain by holding back or by misreporting.

One function for each question, on `hanse.book/1` documents:

    join.join                    what a site gains, why, how surely, and its break-even cost
    leave.leave                  what it and the others give up when one leaves
    decomposition.decompose      pooled capacity, other GPU types, affinity of sites
    sensitivity.sensitivity      the gain as speeds, distance, costs or load change
    best_response.best_response  where it leads when sites choose in turn what they offer
    misreport.misreport          what each lie would bring
    partners.around              drawn partners around an operator's own offer
    documents.document           any of these reports as a `hanse.incentives/1` document
"""
