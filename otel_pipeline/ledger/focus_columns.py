"""The columns of FOCUS that this project writes, and the values that the specification allows in them.

FOCUS (FinOps Open Cost and Usage Specification) 1.2 and 1.4 want different names for the same things: 1.4 has
ServiceProviderName and HostProviderName where 1.2 has ProviderName and PublisherName. A file here has both, so one file
serves readers of either. Own columns begin with x_ and stand behind all others.
"""

from __future__ import annotations

from typing import Final

MANDATORY: Final = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
)
"""Of 1.2."""
RECOMMENDED: Final = ("ChargeFrequency", "InvoiceId", "ServiceSubcategory")
SINCE_1_3: Final = ("ServiceProviderName", "HostProviderName")
CONDITIONAL: Final = ("RegionId", "ResourceId", "ResourceName", "ResourceType", "Tags")
SPLIT: Final = (
    "AllocatedMethodDetails",
    "AllocatedMethodId",
    "AllocatedResourceId",
    "AllocatedResourceName",
    "AllocatedTags",
)
OWN: Final = (
    "x_Attempt",
    "x_Bucket",
    "x_OriginBilledCost",
    "x_OriginPricingQuantity",
    "x_Outcome",
    "x_PriceId",
)
"""x_Bucket names the unallocated portion: idle, startup and so on. x_Origin... are of the charge that was split."""
COLUMNS: Final = (*sorted((*MANDATORY, *RECOMMENDED, *SINCE_1_3, *CONDITIONAL, *SPLIT)), *OWN)

NOT_NULL: Final = frozenset(
    {*MANDATORY, *SINCE_1_3, "ServiceSubcategory", "ChargeFrequency"}
    - {"BillingAccountName", "ChargeClass", "ChargeDescription", "PricingQuantity", "PricingUnit"}
)
COSTS: Final = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
DECIMALS: Final = (*COSTS, "PricingQuantity", "x_OriginBilledCost", "x_OriginPricingQuantity")
DATES: Final = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
JSON_COLUMNS: Final = ("Tags", "AllocatedTags", "AllocatedMethodDetails")

CHARGE_CATEGORIES: Final = frozenset({"Usage", "Purchase", "Tax", "Credit", "Adjustment"})
CHARGE_CLASSES: Final = frozenset({"", "Correction"})
CHARGE_FREQUENCIES: Final = frozenset({"One-Time", "Recurring", "Usage-Based"})
_SUBCATEGORIES: Final = {
    "AI and Machine Learning": "AI Platforms,Bots,Generative AI,Machine Learning,Natural Language Processing",
    "Analytics": "Analytics Platforms,Business Intelligence,Data Processing,Search,Streaming Analytics",
    "Business Applications": "Productivity and Collaboration",
    "Compute": "Containers,End User Computing,Quantum Compute,Serverless Compute,Virtual Machines",
    "Databases": "Caching,Data Warehouses,Ledger Databases,NoSQL Databases,Relational Databases,Time Series Databases",
    "Developer Tools": "Developer Platforms,Continuous Integration and Deployment,Development Environments,"
    "Source Code Management,Quality Assurance",
    "Identity": "Identity and Access Management",
    "Integration": "API Management,Messaging,Workflow Orchestration",
    "Internet of Things": "IoT Analytics,IoT Platforms",
    "Management and Governance": "Architecture,Compliance,Cost Management,Data Governance,Disaster Recovery,"
    "Endpoint Management,Observability,Support",
    "Media": "Content Creation,Gaming,Media Streaming,Mixed Reality",
    "Migration": "Data Migration,Resource Migration",
    "Mobile": "",
    "Multicloud": "Multicloud Integration",
    "Networking": "Application Networking,Content Delivery,Network Connectivity,Network Infrastructure,"
    "Network Routing,Network Security",
    "Security": "Secret Management,Security Posture Management,Threat Detection and Response",
    "Storage": "Backup Storage,Block Storage,File Storage,Object Storage,Storage Platforms",
    "Web": "Application Platforms",
    "Other": "",
}
SUBCATEGORIES: Final = {
    category: frozenset({*filter(None, names.split(",")), f"Other ({category})"})
    for category, names in _SUBCATEGORIES.items()
}
"""What may stand in ServiceSubcategory, by ServiceCategory."""
